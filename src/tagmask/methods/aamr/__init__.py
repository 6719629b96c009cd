"""TODO aamr."""
