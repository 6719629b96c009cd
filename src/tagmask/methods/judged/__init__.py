"""TODO judged."""
