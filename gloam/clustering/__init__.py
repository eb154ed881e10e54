"""Jaccard distance and pseudo-labels without an N x N matrix."""
