"""Questions to one kind of model: what a video model makes of its clips, what MMGL's stripes have learned."""
