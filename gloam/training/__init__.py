"""Everything that knows the trainer."""
