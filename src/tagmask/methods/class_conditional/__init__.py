"""TODO class_conditional."""
