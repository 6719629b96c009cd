"""The wrapper of every segmentation network: padding, several outputs, what gets no weight decay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagmask.contracts.network import SegmentationModel


def test_padding_is_cut_off_again() -> None:
    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, ...]] = []

        def forward(self, views: Tensor) -> Tensor:
            self.seen.append(tuple(views.shape[2:]))
            return functional.avg_pool2d(views, 1)

    network = Echo()
    views = torch.randn(1, 3, 33, 64)
    assert torch.equal(SegmentationModel(network, grid=32)(views), views)
    assert network.seen == [(64, 64)]


def test_every_output_of_a_padded_network_is_cut() -> None:
    class Twice(nn.Module):
        def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
            return views, 2 * views

    views = torch.randn(1, 3, 5, 6)
    one, other = SegmentationModel(Twice(), grid=4, output_weights=(1.0, 0.4))(views)
    assert torch.equal(one, views)
    assert torch.equal(other, 2 * views)


def test_without_a_grid_nothing_is_padded_or_cut() -> None:
    class Half(nn.Module):
        def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
            return views, functional.avg_pool2d(views, 2)

    outputs = SegmentationModel(Half(), grid=1)(torch.zeros(1, 3, 7, 9))
    assert [tuple(o.shape[2:]) for o in outputs] == [(7, 9), (3, 4)]


def test_tables_of_positions_never_decay() -> None:
    network = nn.Module()
    network.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
    network.weight = nn.Parameter(torch.zeros(3, 3))
    assert [p.shape for p in SegmentationModel(network, grid=1).undecayed()] == [(9, 2)]
