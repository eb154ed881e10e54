"""A database of people seen: crops and their features on disk, searched by an image, a key or features."""
