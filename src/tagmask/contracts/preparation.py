"""What a training learns from besides images and tags, made with the classifier that was trained before.

SC-CAM's head learns sub-categories, which are clusters of features; split & unite lets a training see cuts of the
images, which are found in activation maps. Both look at every training image once, and conclude from what they saw.
The classify stage does the rest: the pass over the images on all ranks, and a JSON file that a resumed training reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from tagmask.contracts.localizer import Trained
from tagmask.types import Problem, Sample, UInt8Array


@dataclass(frozen=True)
class Supplement:
    """What a preparation gives to a training.

    Args:
        extras: by key and image id, tensors that come with the images and are among the ``extras`` of the head's loss.
        problems: what fell short, by image or class.
    """

    extras: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class Preparation(ABC):
    """One pass over the training images before a training, and what it leaves."""

    #: What it makes, in the words of a message.
    makes: ClassVar[str]
    #: Name of the JSON file in the training's folder.
    file: ClassVar[str]
    #: What the terminal says while the images are looked at.
    title: ClassVar[str]
    #: Whether images without tags are looked at too.
    untagged: ClassVar[bool] = True

    @abstractmethod
    def observe(self, trained: Trained, sample: Sample, image: UInt8Array, class_names: Sequence[str]) -> Any:
        """What one image shows; call it under the autocast you want.

        Args:
            trained: the classifier trained before.
            sample: id and tags.
            image: uint8 [H, W, 3] RGB.
            class_names: of the C foreground classes.

        Returns:
            Anything that can be sent to another process.

        Raises:
            RunError: the features or maps are not finite.
        """

    @abstractmethod
    def conclude(
        self, samples: Sequence[Sample], observations: Mapping[str, Any], class_names: Sequence[str], seed: int
    ) -> dict[str, Any]:
        """What is written to :attr:`file`, as plain JSON values.

        Args:
            samples: the training images that could be read, in order.
            observations: by image id, what :meth:`observe` returned.
            class_names: of the C foreground classes.
            seed: of the run.
        """

    @abstractmethod
    def supplement(
        self, record: Mapping[str, Any], samples: Sequence[Sample], class_names: Sequence[str], stage: str
    ) -> Supplement:
        """What a written record means for the training ``stage`` of ``samples``."""

    def view(
        self, record: Mapping[str, Any], sample: Sample, image: UInt8Array, rng: np.random.Generator
    ) -> UInt8Array:
        """The image that the training sees in this epoch, before it is augmented; all randomness from ``rng``."""
        del record, sample, rng
        return image
