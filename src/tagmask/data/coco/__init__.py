"""COCO: instances JSON, its masks, tags from both."""
