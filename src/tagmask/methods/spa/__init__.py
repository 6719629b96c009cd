"""TODO spa."""
