"""Peak memory of the localize stage against the number of images: it has to be flat.

    python benchmarks/localize_memory.py [--images 50 500]

Each size runs in a process of its own (fresh peak), on PartsWorld, with an untrained classifier.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tagmask.engine.engine import Engine
from tagmask.engine.memory import peak_megabytes, reset_peak
from tagmask.models.classifier import build_classifier
from tagmask.progress.listeners import SilentProgress
from tagmask.runs.context import Context
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import load_recipe
from tagmask.stages.localize.stage import run as localize


def measure(images: int) -> float:
    """Peak memory in MiB while maps of ``images`` images are written."""
    recipe = load_recipe({"data": {"format": "partsworld", "train": images, "val": 1}})
    source = recipe.data.open()
    engine = Engine(recipe.engine, seed=0)
    model = engine.place(build_classifier(recipe.classify, len(source.classes.foreground)))
    with tempfile.TemporaryDirectory() as folder:
        reset_peak()
        localize(Context(recipe, Workspace(Path(folder)), engine, source.weak(), SilentProgress()), model)
        return peak_megabytes()


def main() -> None:
    """Measure each size in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(options.one))
        return
    for images in options.images:
        command = [sys.executable, __file__, "--one", str(images)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{images:6d} images: peak {float(done.stdout.split()[-1]):7.1f} MiB")


if __name__ == "__main__":
    main()
