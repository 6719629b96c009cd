"""Where things stand out from their surroundings: from files, from a classical method, or from a function of yours."""

from tagmask.saliency.minimum_barrier import minimum_barrier_saliency

__all__ = ["minimum_barrier_saliency"]
