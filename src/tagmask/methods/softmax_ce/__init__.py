"""TODO softmax_ce."""
