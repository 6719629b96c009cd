from __future__ import annotations

import yaml

from tagmask.settings.annotated import annotated_lines


def test_comments_stand_behind_their_keys_and_change_no_value() -> None:
    values = {
        "name": "own # 1",
        "data": {"root": "a: b", "classes": ["x", "y"]},
        "refine": [{"name": "walk", "root": "here"}, "threshold"],
        "segment": {"crf": None, "network": {"name": "deep"}, "scales": [1.0, 0.5]},
    }
    comments = {
        "data.root": "one", "refine.root": "none", "segment.network.name": "two", "segment.scales": "three", "x": "no"
    }  # fmt: skip
    lines = list(annotated_lines(values, comments))
    assert yaml.safe_load("\n".join(lines)) == values
    assert [line.strip() for line in lines if "  # " in line] == [
        "root: 'a: b'  # one",
        "name: deep  # two",
        "scales: [1.0, 0.5]  # three",
    ]
