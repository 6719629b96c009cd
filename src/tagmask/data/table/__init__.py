"""A CSV or Parquet table of images and tags."""

from tagmask.registry import Declaration

METHODS = (
    Declaration("data", "table", "source:TableSource", "CSV or Parquet table of images and tags", page="own-data.md"),
)
