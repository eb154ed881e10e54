"""Neighbours, Jaccard distance and pseudo-labels, all sparse."""
