"""TODO ssa."""
