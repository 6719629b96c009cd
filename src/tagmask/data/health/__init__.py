"""Checks of a data source before anything is trained."""
