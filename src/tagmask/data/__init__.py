"""Data sources: every format gives the same samples. Nothing is imported before it is used (see registry)."""
