"""Ranking, re-ranking and protocols. Depends on datasets, search and tensors only, never on the trainer."""
