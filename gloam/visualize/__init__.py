"""Images for people: rank lists, training curves, embeddings."""
