"""TODO saliency_folder."""
