"""Maps that are all constant name their cause: the first of those that the classifier's training shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.errors import DataError
from tagmask.runs.context import Context
from tagmask.stages.refine.constant_maps import UNLEARNT
from tagmask.stages.refine.stage import run
from tagmask.storage.records import write_json
from tagmask.types import ActivationMaps, ClassList, DataSource, Sample

ContextOf = Callable[..., Context]
ENOUGH = {"key": "classify.iterations", "updates": 68, "least": 68, "classes": 2}
FEW = {**ENOUGH, "updates": 16}


@pytest.fixture
def refine(context_of: ContextOf, tiny: dict[str, Any], tmp_path: Path) -> Callable[..., None]:
    """Refine a run whose only map is zero, after a training that left these lines of its history and this entry."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.png", (1,))
    source = DataSource("t", ClassList(("background", "x", "y")), {"train": (sample,), "val": ()}, "f")
    tiny["refine"] = [{"name": "threshold", "value": "auto"}]

    def refine(training: dict[str, Any], history: str) -> None:
        space = context_of(tiny, source).workspace
        zero = np.zeros((1, 4, 4), np.float32)
        space.save_maps("a", ActivationMaps(np.array([1]), zero, np.zeros(1, np.float32), (16, 16)))
        write_json(space.root / "manifest.json", {"stages": {"classify": {"trainings": {"classify": training}}}})
        space.stage("classify").mkdir(exist_ok=True)
        (space.stage("classify") / "history.jsonl").write_text(history)
        run(context_of(tiny, source))

    return refine


@pytest.mark.parametrize(
    ("training", "history", "cause"),
    [
        (
            FEW,
            '{"train_map": 0.1}',
            r"The classifier \(classify\) was trained too little: 16 updates are few for 2 classes, 68 or more are "
            r"advised; set classify.iterations=auto\.$",
        ),
        (
            ENOUGH,
            '{"val_map": 0.9}\n{"train_map": 0.314, "val_map": 0.9}\n{"loss": 1}',
            r"has not learnt the tags \(mean average precision 0\.31\): train it longer, .* as the recipe own does",
        ),
        (ENOUGH, '{"val_map": 0.2}', r"has not learnt the tags \(mean average precision 0\.20\)"),
        (ENOUGH, f'{{"train_map": {UNLEARNT}}}', r"has learnt the tags, but .* or set refine\.threshold\.value\.$"),
        ({}, "", r"nothing stands out in its maps"),
    ],
)
def test_the_cause(refine: Callable[..., None], training: dict[str, Any], history: str, cause: str) -> None:
    with pytest.raises(DataError, match=rf"^refine: no threshold can be chosen from 1 images: every map .* {cause}"):
        refine(training, history)
