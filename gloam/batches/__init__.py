"""Records and pixels become batches: the batch itself, clips, loaders."""
