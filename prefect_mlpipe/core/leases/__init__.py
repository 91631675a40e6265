"""Who computes a key, so that nobody else does at the same time."""
