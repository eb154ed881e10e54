"""What finds the nearest rows: an exact scan, quantised codes, a Qdrant cluster. One interface of six methods."""
