"""TODO affinitynet."""
