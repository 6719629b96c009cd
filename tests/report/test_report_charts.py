"""Charts: well-formed SVG, inside its frame, numbers where they belong."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bad_runs import facts_of
from tagmask.report.run.charts import training_charts
from tagmask.report.svg import (
    HEIGHT,
    WIDTH,
    Marker,
    Series,
    grouped_bars,
    heat_matrix,
    line_chart,
    nice_ticks,
    smooth,
    thin,
)

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(FINITE, st.floats(1e-6, 1e6), st.integers(2, 10))
def test_ticks_are_inside_round_and_few(low: float, span: float, count: int) -> None:
    high = low + span
    ticks = nice_ticks(low, high, count)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert len(ticks) <= count + 2
    assert ticks == sorted(ticks)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 100, [0, 20, 40, 60, 80, 100]), (3, 3, [3])]
)
def test_ticks_by_example(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


@settings(max_examples=50)
@given(st.lists(FINITE, min_size=1, max_size=600), st.text(max_size=20))
def test_line_chart_is_xml_and_stays_in_its_frame(values: list[float], name: str) -> None:
    name = re.sub(r"[\x00-\x1f\ud800-\udfff￾￿]", "", name)
    x = [float(index) for index in range(len(values))]
    svg = line_chart([Series(name, x, values, "red")], label=name, x_label=name, y_label="y")
    root = ElementTree.fromstring(svg)
    for line in root.iter("polyline"):
        points = [pair.split(",") for pair in line.attrib["points"].split()]
        assert all(-0.1 <= float(px) <= WIDTH + 0.1 and -0.1 <= float(py) <= HEIGHT + 0.1 for px, py in points)
        assert len(points) == len(values)


def test_higher_values_are_drawn_higher() -> None:
    svg = line_chart([Series("a", [0, 1], [1, 9], "red")], label="", x_label="", y_label="")
    result = re.search(r'points="([^"]*)"', svg)
    assert result is not None
    (_, first), (_, last) = (map(float, pair.split(",")) for pair in result.group(1).split())
    assert last < first


def test_hover_tells_the_values_of_every_line() -> None:
    lines = [Series("train", [0, 1], [10, 20], "red"), Series("val", [0, 1], [30, 40], "blue")]
    svg = line_chart(lines, label="", x_label="threshold", y_label="")
    titles = [title.text or "" for title in ElementTree.fromstring(svg).iter("title")]
    assert titles[0].splitlines()[1:] == ["train: 10.0", "val: 30.0"]
    assert titles[-1].splitlines()[1:] == ["train: 20.0", "val: 40.0"]


def test_marker_at_the_right_edge_is_labelled_to_its_left() -> None:
    series = [Series("a", [0, 1], [0, 1], "red")]
    for x, anchor in ((0.1, "start"), (0.95, "end")):
        svg = line_chart(series, label="", x_label="", y_label="", markers=[Marker(x, "auto", "blue")])
        label = next(e for e in ElementTree.fromstring(svg).iter("text") if e.text == "auto")
        assert label.attrib["text-anchor"] == anchor


def test_nothing_to_draw_is_an_empty_string() -> None:
    assert line_chart([], label="", x_label="", y_label="") == ""
    assert line_chart([Series("a", [], [], "red")], label="", x_label="", y_label="") == ""
    assert grouped_bars(["1"], [("a", "red", [None])], label="", x_label="", y_label="") == ""
    assert heat_matrix([], [], label="") == ""


@given(st.lists(FINITE, min_size=1, max_size=1000), st.integers(1, 100))
def test_thinned_curve_is_short_and_within_the_range(values: list[float], limit: int) -> None:
    x, y = thin(range(len(values)), values, limit)
    assert len(x) == len(y) == min(len(values), limit)
    assert x == sorted(x)
    slack = 1e-6 * max(map(abs, values))
    assert min(values) - slack <= min(y) <= max(y) <= max(values) + slack


def test_smoothing_has_no_lag() -> None:
    straight = [10.0 - 0.01 * index for index in range(500)]
    assert smooth(straight) == pytest.approx(straight)


def test_smoothing_calms() -> None:
    noisy = [math.sin(7.3 * index) for index in range(500)]
    assert max(map(abs, smooth(noisy)[50:-50])) < 0.2


def test_bars_are_as_high_as_their_values() -> None:
    series = [("maps", "red", [50.0, None]), ("full", "blue", [100.0, 25.0])]
    svg = grouped_bars(["1", "2"], series, label="", x_label="", y_label="")
    bars = [e for e in ElementTree.fromstring(svg).iter("rect") if e.attrib["class"] == "bar"]
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights == pytest.approx([heights[1] / 2, heights[1], heights[1] / 4], abs=0.2)


@pytest.mark.parametrize("n", [2, 21, 81])
def test_matrix_cells_keep_their_place(n: int) -> None:
    names = [f"<{index}> {'name ' * 9}" for index in range(n)]
    rows = [[1.0 if i == j else 0.0 for j in range(n)] for i in range(n)]
    rows[0][n - 1] = 0.5
    root = ElementTree.fromstring(heat_matrix(rows, names, label="m"))
    hits = [e for e in root.iter("rect") if e.attrib["class"] == "hit"]
    assert len(hits) == n
    assert all(e.attrib["x"] == e.attrib["y"] for e in hits)
    (miss,) = (e for e in root.iter("rect") if e.attrib["class"] == "miss")
    assert float(miss.attrib["x"]) > float(miss.attrib["y"])
    labels = [e.text or "" for e in root.iter("text")]
    assert len(labels) == 2 * n
    size = float(root.attrib["viewBox"].split()[2])
    assert (size - 78) / n > 9, "the names of many classes are too small to read"
    assert all(len(label) < 45 for label in labels)


def test_tags_on_training_images_stand_beside_those_on_val() -> None:
    lines = ({"step": 1, "val_map": 0.4}, {"step": 2, "val_map": 0.8, "train_map": 0.971})
    (chart,) = training_charts(facts_of(history=lines[1]))[-1:]
    assert chart.title == "Classifier: val mAP"
    assert [text for _, text in chart.legend] == ["last 80.0, training images 97.1"]
    (older,) = training_charts(facts_of(history=lines[0]))[-1:]
    assert [text for _, text in older.legend] == ["last 40.0"]
