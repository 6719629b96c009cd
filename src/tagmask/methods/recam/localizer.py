"""Maps of ReCAM's classifiers. Chen et al., "Class Re-Activation Maps for Weakly-Supervised Semantic Segmentation",
CVPR 2022, Eq. 9; docs/methods/recam.md.

R_c(p) = ReLU(v_c . F_p) as for CAM, with v made of the first and second classifier's weights w and w'.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from tagmask.methods.cam.localizer import LinearView

Weights = Literal["w", "w2", "sum", "product", "agreement"]


def reactivation_weights(class_weights: Tensor, second_weights: Tensor, weights: Weights = "product") -> Tensor:
    """The weights that ReCAM's maps are made with, without rescaling either.

    The element-wise product turns two negative weights into a positive one, so that maps may respond where both
    classifiers see evidence against the class.

    Args:
        class_weights: w [C, D] of the first classifier.
        second_weights: w' [C, D] of the second one.
        weights: ``w``, ``w2`` (w'), ``sum`` (w + w'), ``product`` (w * w', the published choice for VOC), or ours:
            ``agreement``, max(w, 0) * max(w', 0), the product where both classifiers see evidence for the class.

    Returns:
        [C, D].

    Raises:
        ValueError: another word for ``weights``.
    """
    if weights == "w":
        return class_weights
    if weights == "w2":
        return second_weights
    if weights == "sum":
        return class_weights + second_weights
    # Beware: where both weights are negative the product is positive: a channel that speaks against the class in both
    # classifiers counts for it. Best of the four on VOC all the same, worst on MSRC (docs/methods/recam.md).
    if weights == "product":
        return class_weights * second_weights
    if weights == "agreement":
        return class_weights.clamp(min=0) * second_weights.clamp(min=0)
    msg = f"weights: expected one of {', '.join(get_args(Weights))}, not {weights!r}"
    raise ValueError(msg)


class Recam(LinearView):
    """Settings of the localizer: ``class_weights`` says which weights make the maps."""

    name: ClassVar[str] = "recam"
    requires: ClassVar[frozenset[str]] = frozenset({"second_weights"})
    class_weights: Weights = "product"

    def weights(self, classifier: Any) -> Tensor:
        """w, w' or what they are combined to, float32 [C, D]."""
        part = classifier.head.part_with("second_weights")
        return reactivation_weights(part.class_weights.float(), part.second_weights.float(), self.class_weights)
