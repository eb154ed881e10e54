"""Distances, nearest neighbours and k-reciprocal sets: one implementation each, CPU and GPU. The lowest floor."""
