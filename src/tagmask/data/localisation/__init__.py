"""Data sets of object localisation, with boxes: CUB, ILSVRC, the lists of wsolevaluation."""
