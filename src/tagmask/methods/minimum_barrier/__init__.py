"""TODO minimum_barrier."""
