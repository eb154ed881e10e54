"""Everything that knows the trainer (Lightning Fabric): runs, stages, scores while training, logs."""
