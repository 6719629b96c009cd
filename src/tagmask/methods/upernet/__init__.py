"""TODO upernet."""
