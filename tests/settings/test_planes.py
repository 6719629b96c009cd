"""Planes that a method needs and nobody makes are an error of the recipe, whichever plane it is."""

from __future__ import annotations

import pytest

from tagmask.contracts import planes
from tagmask.settings.segment import SegmentSettings


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ("saliency", r"the loss l needs saliency maps; set segment.saliency \(minimum_barrier, folder, function\)"),
        ("confidence", r"the loss l needs confidence maps; set segment.confidence$"),
        ("depth", r"the loss l needs 'depth', which no stage makes \(only saliency, confidence\)"),
    ],
)
def test_a_plane_without_a_source(monkeypatch: pytest.MonkeyPatch, needs: str, said: str) -> None:
    monkeypatch.setitem(planes.SOURCES, "confidence", "segment.confidence")  # as if a stage made such planes
    with pytest.raises(ValueError, match=said):
        SegmentSettings().check_planes({needs}, "the loss l")


def test_a_plane_with_a_source_is_fine() -> None:
    SegmentSettings.model_validate({"saliency": "minimum_barrier"}).check_planes({"saliency"}, "the loss l")
