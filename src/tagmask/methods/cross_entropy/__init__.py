"""TODO cross_entropy."""
