"""The embedded procedural data set."""
