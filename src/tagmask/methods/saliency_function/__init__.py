"""TODO saliency_function."""
