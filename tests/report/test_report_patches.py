"""What localizers have learnt, as pictures: the right region, bounded, whatever the files hold."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fake_run import FakeRun, make_run, make_source
from tagmask.report.run.page import write_report
from tagmask.report.run.patches import draw_patch, localizer_patches
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import write_json
from tagmask.types import DataSource

MARK = (250, 10, 200)


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    source = make_source(tmp_path / "pictures", train=4, val=2)
    return FakeRun(make_run(tmp_path / "run", source, stages=("classify", "localize")), source)


def leave(workspace: Workspace, groups: Any, name: str = "lpcam") -> Path:
    path = workspace.stage("localize") / f"{name}.json"
    write_json(path, {"schema": 1, "notes": [], "groups": groups})
    return path


def group(title: str, *ids: str, box: tuple[int, int, int, int] = (16, 16, 32, 32)) -> dict[str, Any]:
    return {"title": title, "patches": [{"id": image_id, "box": list(box)} for image_id in ids]}


def ids(source: DataSource) -> list[str]:
    return [sample.id for sample in source.splits["train"]]


def test_the_picture_shows_the_region_and_its_frame_lies_on_it() -> None:
    image = np.full((120, 200, 3), 90, np.uint8)
    image[40:56, 100:116] = MARK
    patch = draw_patch("x", image, (40, 100, 56, 116))
    picture = np.asarray(decode(patch.uri)).astype(int)
    assert picture.shape[:2] == (patch.height, patch.width) == (88, 88)
    left, top, width, height = (value / 100 * 88 for value in patch.region)
    assert (width, height) == pytest.approx((22, 22))  # 16 of 64 pixels
    inside = picture[round(top) + 3 : round(top + height) - 3, round(left) + 3 : round(left + width) - 3]
    assert np.abs(inside - MARK).max() < 60
    around = picture.copy()
    around[round(top) - 3 : round(top + height) + 3, round(left) - 3 : round(left + width) + 3] = 90
    assert np.abs(around - 90).max() < 25


@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.tuples(*[st.integers(-20, 170)] * 4),
)
def test_any_region_of_any_image_is_a_small_picture(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    patch = draw_patch("x", np.zeros((*size, 3), np.uint8), box)
    assert 1 <= patch.width <= 88
    assert 1 <= patch.height <= 88
    assert max(patch.width, patch.height) == 88
    left, top, width, height = patch.region
    assert min(left, top) >= 0
    assert min(width, height) > 0
    assert max(left + width, top + height) <= 100 + 1e-6


def test_a_region_larger_than_the_usual_window_keeps_its_surroundings() -> None:
    patch = draw_patch("x", np.zeros((400, 400, 3), np.uint8), (100, 100, 200, 200))
    assert patch.region == (25, 25, 50, 50)


def test_rows_are_those_of_the_file(run: FakeRun) -> None:
    first, second, *_ = ids(run.source)
    leave(run.workspace, [group("cow: prototype 1", first, second), group("cow: prototype 2", second)])
    leave(run.workspace, [group("word 7", first)], name="visual_words")
    lpcam, words = localizer_patches(run.workspace, run.source)
    assert (lpcam.name, words.name) == ("lpcam", "visual_words")
    assert [(row.title, [patch.id for patch in row.patches]) for row in lpcam.rows] == [
        ("cow: prototype 1", [first, second]),
        ("cow: prototype 2", [second]),
    ]
    assert lpcam.notes == words.notes == []
    assert (lpcam.total, words.total) == (2, 1)


def test_the_page_has_the_section_and_escapes_titles(run: FakeRun) -> None:
    leave(run.workspace, [group("<b>cow</b>", *ids(run.source))])
    page = write_report(run.workspace, run.source).read_text(encoding="utf-8")
    assert "What was learnt" in page
    assert '<a href="#learnt">' in page
    assert "&lt;b&gt;cow&lt;/b&gt;" in page
    assert "<b>cow</b>" not in page
    assert len(re.findall(r'<span class="patch"', page)) == 4


def test_many_rows_are_folded_but_there(run: FakeRun) -> None:
    leave(run.workspace, [group(f"group number {place}.", ids(run.source)[0]) for place in range(30)])
    page = write_report(run.workspace, run.source).read_text(encoding="utf-8")
    assert all(f"group number {place}." in page for place in range(30))
    assert "<summary>18 more</summary>" in page


@pytest.mark.parametrize("pictures", [True, False])
def test_nothing_learnt_or_no_pictures_wanted_no_section(run: FakeRun, pictures: bool) -> None:
    if not pictures:
        leave(run.workspace, [group("cow", ids(run.source)[0])])
    page = write_report(run.workspace, run.source, gallery_images=48 if pictures else 0).read_text(encoding="utf-8")
    assert "What was learnt" not in page


def test_the_number_of_pictures_is_bounded_and_no_class_falls_off_the_end(run: FakeRun) -> None:
    rows = [group(f"class {place}", *ids(run.source)) for place in range(400)]
    leave(run.workspace, rows)
    (result,) = localizer_patches(run.workspace, run.source, most=60)
    assert sum(len(row.patches) for row in result.rows) == 60
    assert all(len(row.patches) == 3 for row in result.rows)
    assert result.total == 400
    assert [row.title for row in result.rows] == [f"class {20 * place}" for place in range(20)]


def test_an_image_is_opened_once(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from tagmask.report.run import patches

    opened: list[Path] = []
    read = patches.read_image
    monkeypatch.setattr(patches, "read_image", lambda path, **options: (opened.append(path), read(path, **options))[1])
    leave(run.workspace, [group(f"class {place}", *ids(run.source)) for place in range(9)])
    localizer_patches(run.workspace, run.source)
    assert len(opened) == len(set(opened)) == 4


def test_images_that_are_gone_or_broken_are_noted_and_the_rest_is_shown(run: FakeRun) -> None:
    first, second, third, *_ = ids(run.source)
    next(sample for sample in run.source.splits["train"] if sample.id == second).image_path.write_bytes(b"no image")
    leave(run.workspace, [group("cow", "elsewhere", first), group("boat", second), group("sheep", third)])
    (result,) = localizer_patches(run.workspace, run.source)
    assert [row.title for row in result.rows] == ["cow", "sheep"]
    assert len(result.notes) == 2
    assert "'elsewhere'" in result.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        '{"groups": 3}',
        '{"groups": [3, {"title": "x"}, {"title": "x", "patches": 7}]}',
        '{"groups": [{"patches": [{"id": "a"}, 5, {"id": "a", "box": [1, 2]}, {"id": "a", "box": [1, 2, "c", 4]}]}]}',
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_no_crash(run: FakeRun, content: str) -> None:
    path = run.workspace.stage("localize") / "lpcam.json"
    path.write_text(content, encoding="utf-8")
    assert all(not learnt.rows for learnt in localizer_patches(run.workspace, run.source))
    page = write_report(run.workspace, run.source).read_text(encoding="utf-8")
    assert "What was learnt" not in page
