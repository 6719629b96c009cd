"""Planes: what a method may ask for beside the image, one float32 [H, W] in [0, 1] for each image.

A head, refiner, labeller or loss names what it ``needs``; the plan of a run then has the stage that makes such planes,
and whoever asked is handed them by name.
"""

from __future__ import annotations

SALIENCY = "saliency"

#: Every plane that a stage makes, and the key of a recipe that says how. The stage is called as the plane is.
SOURCES = {SALIENCY: "segment.saliency"}
IMAGE = "image"  # of a labeller, which otherwise is given maps alone
