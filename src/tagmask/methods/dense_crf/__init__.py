"""TODO dense_crf."""
