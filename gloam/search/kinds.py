"""Kinds of exact distance, as compiled loops tell them apart: squared Euclidean, Euclidean, 1 - cosine."""

SQUARED, ROOT, COSINE = 0, 1, 2
