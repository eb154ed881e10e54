"""Losses: pure functions first, one file per family."""
