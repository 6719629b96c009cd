"""The PASCAL VOC layout."""
