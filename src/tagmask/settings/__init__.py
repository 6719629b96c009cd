"""A recipe as typed settings: one file for each of its keys."""
