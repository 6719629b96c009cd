"""Soft Dice beside the cross entropy, for objects of few pixels. Milletari et al., 3DV 2016; Isensee et al., 2021."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "loss",
        "dice",
        "loss:Dice",
        "cross entropy and soft Dice of the classes: a class of few pixels counts as much as a large one",
        page="methods/dice.md",
    ),
)
