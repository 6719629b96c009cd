"""Saliency maps of a function of yours."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "saliency",
        "function",
        "saliency:FunctionSaliency",
        "a function of yours, 'module:function'",
        page="methods/aamr.md",
    ),
)
