"""A network for images of other channels than red, green and blue: its first convolution, and its statistics.

The weights of the first convolution are those of red, green and blue in turn, times 3 / C, so that an image whose
channels are alike gives what it gave; for one channel they are summed. That is timm's rule for ``in_chans``, which no
checkpoint's own loading is needed for: it is applied to any network after its weights are there.
"""

from __future__ import annotations

from typing import Any

from timm.models import adapt_input_conv
from torch import nn

from tagmask.errors import InputError
from tagmask.types import InputStatistics


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
