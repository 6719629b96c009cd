"""TODO colour_walk."""
