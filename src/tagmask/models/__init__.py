"""Trained networks: built, read back, folded, gated, tiled, asked."""
