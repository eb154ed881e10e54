"""Augmentation of whole batches at once, on their device."""
