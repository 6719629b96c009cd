"""Measure maps, masks and predictions against ground truth."""
