"""Decoded uint8 images: the memory-mapped cache, decoding on the fly, video files."""
