"""The fully connected CRF: mean field over a permutohedral lattice. Krähenbühl & Koltun, NIPS 2011."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "dense_crf",
        "refiner:DenseCrf",
        "fully connected CRF: every two pixels should agree, near ones of like colour most; nothing to train",
        paper="Krähenbühl & Koltun, NIPS 2011",
        page="methods/dense-crf.md",
    ),
)
