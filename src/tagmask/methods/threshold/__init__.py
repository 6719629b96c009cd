"""TODO threshold."""
