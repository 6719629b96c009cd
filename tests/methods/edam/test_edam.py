"""EDAM's label rule: against the published implementation, by hand, and inside a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tagmask.cli import app
from tagmask.contracts.labeller import LabelRequest
from tagmask.errors import DataError
from tagmask.functional import maps_to_labels, saliency_labels
from tagmask.methods.edam.refiner import SaliencyRule

Stored = Mapping[str, np.ndarray[Any, Any]]
CLASSES = torch.tensor([3, 7])


@pytest.mark.parametrize("setting", range(3))
def test_labels_are_the_published_ones(golden: Callable[[str], Stored], setting: int) -> None:
    stored = golden("edam")
    maps, classes = torch.from_numpy(np.array(stored["expected_maps"])), stored["expected_class_indices"] + 1
    values = {name: float(stored[f"settings_{name}"][setting]) for name in ("theta", "alpha", "beta")}
    labels = saliency_labels(maps, torch.from_numpy(classes), np.array(stored["saliency"]), **values)
    assert np.array_equal(labels, stored["expected_labels"][setting])
    plane = np.array(stored["saliency"], np.float32) / 255
    request = LabelRequest(maps, torch.from_numpy(classes), plane.shape, 0.5, planes={"saliency": plane})
    assert np.array_equal(SaliencyRule(**values).labels(request), stored["expected_labels"][setting])
    without = LabelRequest(maps, torch.from_numpy(classes), plane.shape, values["theta"])
    assert np.array_equal(SaliencyRule(**values).labels(without), stored["expected_labels_without_saliency"][setting])


def test_the_rule_by_hand() -> None:
    """Columns: salient, just salient, just not, not salient."""
    saliency = np.array([[255, 21, 20, 0]], np.uint8)
    maps = torch.tensor([[[0.1, 0.3, 0.3, 1.0]], [[0.2, 0.3, 0.9, 0.4]]])
    # The highest map; of equal ones the first; background, whatever the maps say; a peak all the same.
    assert saliency_labels(maps, CLASSES, saliency).tolist() == [[7, 3, 0, 3]]
    # No map at all: background, though salient.
    assert saliency_labels(torch.zeros(2, 1, 4), CLASSES, saliency).tolist() == [[0, 0, 0, 0]]
    assert saliency_labels(maps, CLASSES, saliency, beta=0.8).tolist() == [[7, 3, 7, 3]]
    assert saliency_labels(maps, CLASSES, saliency, alpha=0.25).tolist() == [[0, 3, 0, 3]]


def test_shapes_must_fit() -> None:
    with pytest.raises(DataError, match="do not fit"):
        saliency_labels(torch.zeros(2, 4, 4), CLASSES, np.zeros((4, 5), np.uint8))


@pytest.mark.parametrize("peak", [0.4, 0.99999])
def test_maps_are_divided_by_their_maximum_unless_told_otherwise(peak: float) -> None:
    maps = torch.full((1, 8, 8), 0.1)
    maps[0, 2, 2] = peak
    plane = np.zeros((8, 8), np.float32)
    request = LabelRequest(maps, CLASSES[:1], (8, 8), 0.5, planes={"saliency": plane})
    assert np.argwhere(SaliencyRule().labels(request)).tolist() == [[2, 2]]
    assert not SaliencyRule(normalise=False).labels(request).any()


def test_without_saliency_it_is_a_threshold() -> None:
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    maps /= maps.amax((1, 2), keepdim=True)
    request = LabelRequest(maps, CLASSES, (8, 8), 0.6)
    assert np.array_equal(SaliencyRule().labels(request), maps_to_labels(maps, CLASSES, 0.6))


def test_a_run_labels_with_it(finished: Path, tmp_path: Path) -> None:
    """The left half alone is salient: nothing is foreground on the right but the peaks of maps."""
    run, grey = tmp_path / "run", tmp_path / "grey"
    shutil.copytree(finished, run)
    grey.mkdir()
    plane = np.zeros((48, 48), np.uint8)
    plane[:, :24] = 255
    for path in (run / "localize" / "maps").glob("*.npz"):
        Image.fromarray(plane).save(grey / f"{path.stem}.png")
    overrides = ["refine=saliency_rule", f"segment.saliency={{name: folder, path: {grey}}}"]
    result = CliRunner().invoke(app, ["run", str(run), *overrides, "--until", "refine", "--plain"])
    assert result.exit_code == 0, result.output
    masks = [np.asarray(Image.open(path)) > 0 for path in (run / "refine" / "masks").glob("*.png")]
    assert len(masks) == 16
    left, right = (np.mean([mask[:, half].mean() for mask in masks]) for half in (slice(24), slice(24, None)))
    assert left > 0.3
    assert right < 0.1 * left
