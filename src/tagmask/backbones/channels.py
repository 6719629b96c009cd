"""A network for images of other channels than red, green and blue: its first convolution, and its statistics.

The weights of the first convolution are those of red, green and blue in turn, times 3 / C, so that an image whose
channels are alike gives what it gave; for one channel they are summed. That is timm's rule for ``in_chans``, which no
checkpoint's own loading is needed for: it is applied to any network after its weights are there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from timm.models import adapt_input_conv
from torch import nn

from tagmask.errors import InputError
from tagmask.types import IMAGENET, InputStatistics


def fit_input(network: Any, channels: InputStatistics) -> None:
    """Have a network that is at its first weights take images of these channels.

    They come to it with the mean and deviation that ImageNet's photographs have under the statistics of its weights.
    Mean 0 and deviation 1, which they have under their own, would be twice the contrast that weights made for 0.5 and
    0.5 have learnt from: features of EfficientNet-Lite0 are then like those of the photographs by a cosine of 0.78
    instead of 0.96.

    Args:
        network: has ``input_statistics``, those of its weights; changed in place.
        channels: mean and deviation of the data's channels.

    Raises:
        InputError: as :func:`set_input`.
    """
    set_input(network, fitting_statistics(network.input_statistics, channels))


def fitting_statistics(weights: InputStatistics, channels: InputStatistics) -> InputStatistics:
    """What channels are normalised with, so that they are to a network what photographs are to its weights.

    Args:
        weights: what the images of its weights are normalised with.
        channels: mean and deviation of the data's channels.
    """
    photographs, deviation = float(np.mean(IMAGENET.mean)), float(np.mean(IMAGENET.std))
    centre, spread = float(np.mean(weights.mean)), float(np.mean(weights.std))
    std = np.array(channels.std) * (spread / deviation)
    mean = np.array(channels.mean) - (photographs - centre) / spread * std
    return InputStatistics(tuple(map(float, mean)), tuple(map(float, std)))


def set_input(network: Any, statistics: InputStatistics) -> None:
    """Have a network take images normalised with these statistics, of as many channels as they have.

    Args:
        network: has ``input_statistics``; changed in place.
        statistics: as many numbers as channels.

    Raises:
        InputError: it takes three channels only.
    """
    widen_input(network, len(network.input_statistics.mean), len(statistics.mean))
    network.input_statistics = statistics


def widen_input(network: nn.Module, old: int, new: int) -> None:
    """Change the first convolution of a network for images of ``old`` channels to one for ``new`` ones, in place.

    Raises:
        InputError: there is none, or what comes before it is made for colours.
    """
    if old == new:
        return
    name = type(network).__name__
    if old != 3:
        msg = f"data.channels: this network is trained on {old} channels, the images have {new} ({name})"
        raise InputError(msg)
    # What undoes a normalisation of its own (Caffe's blue, green, red) says so.
    if any(getattr(module, "colours_only", False) for module in network.modules()):
        msg = f"data.channels: a network of this kind takes colours only, not {new} channels; choose another ({name})"
        raise InputError(msg)
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    if first is None or first.in_channels != old or first.groups != 1:
        msg = f"data.channels: this network begins with no convolution over its {old} channels; choose another ({name})"
        raise InputError(msg)
    weight = first.weight
    first.weight = nn.Parameter(adapt_input_conv(new, weight.data), requires_grad=weight.requires_grad)
    first.in_channels = new
