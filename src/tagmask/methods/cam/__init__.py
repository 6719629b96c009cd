"""TODO cam."""
