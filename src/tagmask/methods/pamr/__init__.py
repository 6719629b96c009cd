"""TODO pamr."""
