"""Train the segmentation network on pseudo masks, and predict."""
