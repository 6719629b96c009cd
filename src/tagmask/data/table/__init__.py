"""A CSV or Parquet table of images and tags."""
