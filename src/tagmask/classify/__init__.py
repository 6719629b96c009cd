"""The tag classifier: backbones, heads, and the stage that trains it."""

from tagmask.classify.hspp import hspp
from tagmask.classify.recam import reactivation_loss
from tagmask.classify.visual_words import visual_words

__all__ = ["hspp", "reactivation_loss", "visual_words"]
