from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tagmask.data.facts import DataFacts, facts_of
from tagmask.types import ClassList, DataSource, Sample


def test_figures_of_the_training_images(tmp_path: Path) -> None:
    rows = [((1,), (30, 20)), ((1, 2), (40, 10)), ((1,), (10, 50)), ((), (10, 10)), ((2, 3), None)]
    samples = []
    for number, (tags, size) in enumerate(rows):
        path = tmp_path / f"{number}.png"
        if size is None:
            path.write_bytes(b"no image")
        else:
            Image.new("RGB", size).save(path)
        samples.append(Sample(str(number), path, tags))
    held = Sample("held", tmp_path / "0.png", (4,))
    classes = ClassList(("background", "a", "b", "c", "d"))
    source = DataSource("table", classes, {"train": tuple(samples), "val": (held,)}, "")
    facts = facts_of(source)
    assert facts == DataFacts(5, 4, pytest.approx(0.2), 1.5, 35, 3.0)  # type: ignore[arg-type]
    assert "5 training images of 4 classes, 20% without a tag" in facts.line()


def test_nothing_tagged_and_nothing_readable(tmp_path: Path) -> None:
    source = DataSource("table", ClassList(("background", "a")), {"train": (Sample("0", tmp_path / "x.png", ()),)}, "")
    assert facts_of(source) == DataFacts(1, 1, 1.0, 0.0, 0, 1.0)
