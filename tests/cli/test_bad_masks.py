"""What a person is told whose masks are bad: in the run, its report, by ``data check``, and when nothing can go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tagmask import cli

TINY = Path(__file__).parent / "tiny.yaml"


def leave(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_no_threshold_has_a_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images of one colour each: nothing in them is an object and nothing is background."""
    for name, colour in (("reds", (200, 30, 30)), ("greens", (30, 200, 30))):
        (tmp_path / "shop" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 40), colour).save(tmp_path / "shop" / name / f"{number}.png")
    data = ("data={format: folders, root: %s, val_fraction: 0}" % (tmp_path / "shop"), "segment=null")
    arguments = ("run", TINY, *data, "refine.threshold.value=auto", "--output", tmp_path / "run")
    assert leave(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "refine: no threshold can be chosen from 12 images: every map or image is constant." in error
    assert "The classifier (classify) was trained too little: 1 updates are few for 2 classes, 68 or more are" in error
    assert leave(*arguments, "classify.iterations=68", "classify.batch_size=2") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "The classifier has learnt the tags, but nothing stands out in its maps: look at them and at the" in error
