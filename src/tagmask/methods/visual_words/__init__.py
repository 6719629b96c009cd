"""TODO visual_words."""
