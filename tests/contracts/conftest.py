"""Every registered method is held to its kind's contract; a new one inherits these tests by its line in the table."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tagmask import registry
from tagmask.backbones.build import BackboneSettings
from tagmask.contracts.trainable import TrainableRefiner

#: Settings that take less time and leave nothing out.
QUICK: dict[str, dict[str, Any]] = {
    "advcam": {"steps": 3},
    "deeplabv2": {"depth": 14, "width": 8},
    "upernet": {
        "encoder_args": {"embed_dim": 16, "depths": (1, 1, 1, 2), "num_heads": (1, 1, 2, 2)},
        "decoder_channels": 16,
        "auxiliary_channels": 8,
    },
    "segformer": {"decoder_channels": 16},
    "unet": {"decoder_channels": (32, 16, 16, 8, 8)},
}
SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``head``, ``localizer``, ``refiner``, ``network`` or ``loss`` runs once for each."""
    for kind in ("head", "localizer", "refiner", "network", "loss"):
        if kind in metafunc.fixturenames:
            metafunc.parametrize(kind, sorted(registry.entries(kind)), indirect=True)
    for role, makes in (("mapper", "maps"), ("labeller", "labels")):
        if role in metafunc.fixturenames:
            names = [
                name for name in sorted(registry.entries("refiner")) if registry.get("refiner", name).makes == makes
            ]
            metafunc.parametrize(role, names, indirect=True)


@pytest.fixture
def quick() -> dict[str, dict[str, Any]]:
    """Settings of methods that would be slow with their defaults, by name."""
    return QUICK


@pytest.fixture
def head(request: pytest.FixtureRequest) -> object:
    """A registered head with its default settings."""
    return registry.get("head", request.param)()


@pytest.fixture
def localizer(request: pytest.FixtureRequest) -> object:
    """A registered localizer with its default settings, but for what only makes it slow."""
    return registry.get("localizer", request.param)(**QUICK.get(request.param, {}))


@pytest.fixture
def refiner(request: pytest.FixtureRequest) -> object:
    """A registered refiner with its default settings."""
    return registry.get("refiner", request.param)()


@pytest.fixture
def mapper(request: pytest.FixtureRequest) -> object:
    """A registered refiner that makes maps of maps; one that learns has a small network that has not learnt."""
    method = registry.get("refiner", request.param)()
    if not isinstance(method, TrainableRefiner):
        return method
    torch.manual_seed(0)
    backbone = BackboneSettings(backbone="resnet10t", backbone_args=SMALL).build()
    return method.trained(method.build(backbone, 8).eval())


@pytest.fixture(params=[n for n in registry.entries("refiner") if hasattr(registry.get("refiner", n), "targets_are")])
def trainable(request: pytest.FixtureRequest) -> TrainableRefiner:
    """A registered refiner that learns."""
    method = registry.get("refiner", request.param)()
    assert isinstance(method, TrainableRefiner)
    return method


@pytest.fixture
def labeller(request: pytest.FixtureRequest) -> object:
    """A registered refiner that makes labels of maps."""
    return registry.get("refiner", request.param)()


@pytest.fixture
def loss(request: pytest.FixtureRequest) -> object:
    """A registered loss with its default settings."""
    return registry.get("loss", request.param)()


@pytest.fixture
def network(request: pytest.FixtureRequest) -> object:
    """A registered network with its default settings, but for what only makes it slow."""
    return registry.get("network", request.param)(**QUICK.get(request.param, {}))
