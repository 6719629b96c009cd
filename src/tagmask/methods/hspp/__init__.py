"""TODO hspp."""
