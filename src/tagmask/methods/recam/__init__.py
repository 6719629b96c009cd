"""TODO recam."""
