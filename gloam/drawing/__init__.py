"""Synthetic people, drawn and written in any dataset's official layout."""
