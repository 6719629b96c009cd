"""How ``runs.tar.xz`` was made. It needs the checkout of commit deb5587, whose module names it uses:

    PYTHONPATH=OLD/src OMP_NUM_THREADS=1 python tests/pipeline/old_run/make.py OLD/recipes

It holds two finished runs of that version with their data, and the plans of many recipes: each as it was written, as
the old version dumped it into ``recipe.yaml``, and the fingerprint of each of its stages. It is never made again: a
version that cannot read it cannot go on with the runs that people have.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagmask.interfaces import ClassList, DataSource
from tagmask.planning import plan
from tagmask.recipe import _read_yaml, load_recipe
from tagmask.segment.presets import PRESETS

import tagmask
from tagmask.data.partsworld import PartsWorldSource, write_partsworld
from tagmask.errors import TagmaskError
from tagmask.registry import entries

HERE = Path(__file__).resolve().parent
PLACE = Path("/tmp/old_run")
TIME = 1_000_000_000  # the masks' times are part of a fingerprint
SOURCE = DataSource("stub", ClassList(("background", "cow", "grass")), {"train": (), "val": ()}, "0" * 64)
HEADS = ("gap", "hspp", "softmax_ce", "restricted", "recam", "visual_words")


def make_data(folder: Path) -> None:
    write_partsworld(folder, PartsWorldSource(train=12, val=4, size=48))
    for name in ("PartMaps", "README.txt", "partsworld.json"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in folder.rglob("*"):
        os.utime(path, (TIME, TIME))


def shipped(recipes: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(recipes.rglob("*.yaml")):
        name = path.relative_to(recipes).with_suffix("").as_posix()
        yield name, {**placeless(_read_yaml(path)), "data": "partsworld"}


def placeless(value: Any) -> Any:
    """The same without the folders of this machine."""
    if isinstance(value, dict):
        return {key: placeless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [placeless(item) for item in value]
    return f"/data/{Path(value).name}" if isinstance(value, str) and "/" in value else value


def single() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method with its defaults, and localizers around each other."""
    for name in entries("head"):
        later = name == "subcategory"
        yield f"head {name}", {"retrain": [{"head": name}]} if later else {"classify": {"head": name}}
    for name in entries("localizer"):
        for head in HEADS:
            yield f"localizer {name} on {head}", {"classify": {"head": head}, "localize": name}
    for outer in ("ssa", "scg", "lpcam", "advcam", "judged", "class_conditional"):
        for inner in ("cam", "lpcam", "ssa", "scg", "advcam"):
            yield f"localizer {outer} of {inner}", {"localize": {"name": outer, "seed": {"name": inner}}}
    for name in entries("refiner"):
        yield f"refiner {name}", {"refine": [*([] if name == "threshold" else [name]), "threshold"]}
    for name in entries("network"):
        yield f"network {name}", {"segment": {"network": name, "supervision": "both"}}
    for name in entries("loss"):
        yield f"loss {name}", {"segment": {"loss": name, "saliency": "minimum_barrier", "rounds": 2}}
    for name in PRESETS:
        yield f"preset {name}", {"segment": {"preset": name}}


def plans(recipes: Path) -> dict[str, Any]:
    made = {}
    for name, written in (*shipped(recipes), *single()):
        try:
            recipe = load_recipe({"name": "run", **written})
        except TagmaskError as error:
            print(f"left out: {name}: {error}")
            continue
        stages = {step.name: step.fingerprint for step in plan(recipe, SOURCE, "float32")}
        made[name] = {"written": written, "dumped": recipe.dump(), "stages": stages}
    return made


def main() -> None:
    platform.platform = lambda *_, **__: "Linux"
    shutil.rmtree(PLACE, ignore_errors=True)
    make_data(PLACE / "data")
    (PLACE / "plans.json").write_text(json.dumps(plans(Path(sys.argv[1])), indent=1))
    for name in ("nested", "gated"):
        shutil.copy(HERE / f"{name}.yaml", PLACE)
        tagmask.run(PLACE / f"{name}.yaml", output=PLACE / name)
        (PLACE / name / ".lock").unlink()
    with tarfile.open(HERE / "runs.tar.xz", "w:xz", preset=9) as archive:
        for name in ("data", "nested", "gated", "plans.json"):
            archive.add(PLACE / name, name, filter=anonymous)


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = TIME
    return member


if __name__ == "__main__":
    main()
