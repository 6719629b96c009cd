"""Make activation maps of every image."""
