"""TODO segformer."""
