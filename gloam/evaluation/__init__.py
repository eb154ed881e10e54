"""Ranking, re-ranking, protocols. Depends on datasets and tensors only, never on the trainer."""
