"""TODO irnet."""
