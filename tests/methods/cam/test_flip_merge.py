"""How maps of an image and its mirror become one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tagmask.contracts.localizer import Trained
from tagmask.methods.cam.localizer import Cam
from tagmask.types import ClassifierOutput


def test_the_larger_value_or_the_sum() -> None:
    trained: Any = Trained(SimpleNamespace(class_weights=torch.tensor([[1.0, -1.0]]), class_bias=None))
    image, mirror = torch.tensor([[2.0, 0.0, 5.0], [0.0, 0.0, 9.0]]), torch.tensor([[1.0, 4.0, 1.0], [0.0, 0.0, 0.0]])
    output = ClassifierOutput(torch.stack([image, mirror])[:, :, None], {}, torch.zeros(2, 1))
    channels = torch.tensor([0])
    one, other = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 4.0, 1.0])  # of the mirror in the image's frame
    assert torch.equal(Cam().scale_maps(trained, output, channels)[0, 0], one + other)
    assert torch.equal(Cam(flip_merge="max").scale_maps(trained, output, channels)[0, 0], torch.maximum(one, other))
