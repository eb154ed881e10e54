"""Slow, obvious re-implementations that tests compare with."""
