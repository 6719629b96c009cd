"""report.html: one self-contained page from what a run left in its directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from tagmask.report.metrics_file import MEASURES, RULES, dig, mapping, number, percent, rules, scores, splits
from tagmask.report.pages import _TEMPLATES, class_colours, environment, page_css
from tagmask.report.run import charts, headline, tables
from tagmask.report.run.diagnosis import diagnosis
from tagmask.report.run.facts import Facts, read_facts
from tagmask.report.run.gallery import Gallery, build_gallery
from tagmask.report.run.layers import READ_ERRORS
from tagmask.report.run.objects import objects
from tagmask.report.run.patches import LocalizerPatches, localizer_patches
from tagmask.report.score_rows import score_rows
from tagmask.runs.pixels import with_stored_pixels
from tagmask.runs.workspace import Workspace
from tagmask.storage.files import atomic_write
from tagmask.types import DataSource

_MOST_PROBLEMS = 200
_YAML_LINE = re.compile(r"^(\s*(?:- )?)([^\s:#'\"]+)(:)(.*)$")


def write_report(workspace: Workspace, source: DataSource | None, *, gallery_images: int = 48, seed: int = 0) -> Path:
    """Write report.html of a run, complete or not.

    Args:
        workspace: the run directory; whatever is missing in it is left out of the page.
        source: where the gallery takes images and real masks from; None leaves the gallery out.
        gallery_images: images in the gallery, 0 for none.
        seed: which images the gallery draws.

    Returns:
        Path of the page, written atomically.

    Raises:
        RunError: the page cannot be written.
    """
    with suppress(*READ_ERRORS):  # the facts say what is wrong with a broken manifest
        source = None if source is None else with_stored_pixels(source, workspace)
    facts = read_facts(workspace, source)
    gallery, patches = None, []
    if source is not None and gallery_images > 0:
        patches = localizer_patches(workspace, source)
        threshold = number(dig(facts.metrics, "threshold", "value"))
        gallery = build_gallery(workspace, source, threshold=threshold, images=gallery_images, seed=seed)
    page = environment().get_template("report.html.j2").render(page_values(facts, source, gallery, patches))
    path = workspace.root / "report.html"
    with atomic_write(path, "w") as stream:
        stream.write(page)
    return path


def page_values(
    facts: Facts, source: DataSource | None, gallery: Gallery | None, patches: Sequence[LocalizerPatches] = ()
) -> dict[str, Any]:
    """Everything the template names."""
    panels = tables.class_panels(facts)
    tags = tables.tag_rows(facts, source)
    training, thresholds = charts.training_charts(facts), charts.threshold_charts(facts)
    groups = _group_charts(facts)
    object_scores = objects(facts.metrics)
    errors, confusion = tables.error_rows(facts), charts.confusion(facts)
    notes = chain(gallery.notes if gallery else (), *(entry.notes for entry in patches))
    sections = {
        "scores": ("Scores", True),
        "gallery": ("Gallery", True),
        "learnt": ("Learnt", any(entry.rows for entry in patches)),
        "objects": ("Localisation", object_scores is not None),
        "classes": ("Per class", bool(panels)),
        "maps": ("Threshold and errors", bool(thresholds or errors or any(groups.values()))),
        "training": ("Training", bool(training or tags)),
        "confusion": ("Confusion", confusion is not None),
        "run": ("The run", True),
        "problems": (f"Problems ({len(facts.problems)})" if facts.problems else "Problems", True),
    }
    colours = class_colours()
    return {
        "facts": facts,
        "names": facts.classes,
        "colours": colours,
        "tag_colours": dict(zip(facts.classes, colours, strict=False)),
        "percent": percent,
        "meta": _meta(facts),
        "sections": [(key, title) for key, (title, present) in sections.items() if present],
        "cards": headline.cards(facts),
        "no_masks": headline.no_masks(facts),
        "sentences": headline.sentences(facts),
        "warnings": _warnings(facts, tags),
        "objects": object_scores,
        "panels": panels,
        "panel_data": [asdict(panel) for panel in panels],
        "panel_choices": _panel_choices(facts, panels),
        "thresholds": thresholds,
        **groups,
        "errors": errors,
        **_score_values(facts),
        "training": training,
        "tags": tags,
        "patches": [entry for entry in patches if entry.rows],
        "confusion": confusion,
        "stages": tables.stage_rows(facts),
        "environment": [("seed", str(facts.manifest.get("seed", "unknown"))), *_rows(facts, "environment")],
        "data": _data_rows(facts),
        "recipe": recipe_markup(facts.recipe),
        "problems": facts.problems[:_MOST_PROBLEMS],
        "n_problems": len(facts.problems),
        "notes": [*facts.notes, *dict.fromkeys(notes)],
        "version": str(dig(facts.manifest, "environment", "tagmask") or ""),
        "css": page_css(),
        "script": Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
        **_gallery_values(facts, source, gallery),
    }


def recipe_markup(text: str) -> Markup:
    """YAML with keys and comments marked; everything else escaped as it is."""
    lines = []
    for line in text.splitlines():
        match = _YAML_LINE.match(line)
        if line.lstrip().startswith("#"):
            lines.append(Markup('<span class="c">{}</span>').format(line))
        elif match:
            lead, key, colon, rest = match.groups()
            lines.append(Markup('{}<span class="k">{}</span>{}{}').format(lead, key, colon, rest))
        else:
            lines.append(escape(line))
    return Markup("\n").join(lines)


def _meta(facts: Facts) -> list[str]:
    """The line below the title."""
    created = str(facts.manifest.get("created") or "").replace("T", " ").removesuffix("Z")
    kind = dig(facts.manifest, "data", "format")
    images = ", ".join(f"{count} {split}" for split, count in facts.splits.items())
    items = [
        created and f"{created} UTC",
        kind and f"data: {kind}",
        images and f"images: {images}",
        len(facts.classes) > 1 and f"{len(facts.classes) - 1} classes",
        dig(facts.manifest, "environment", "device"),
        "seed" in facts.manifest and f"seed {facts.manifest['seed']}",
    ]
    return [str(item) for item in items if item]


def _warnings(facts: Facts, tags: list[tables.TagRow]) -> list[str]:
    lost = [row.name for row in tags if row.warning == "never learnt"]
    texts = []
    if lost:
        one = len(lost) == 1
        texts.append(
            f"{', '.join(lost)}: the classifier never learnt {'this class' if one else 'these classes'}, so "
            f"{'its' if one else 'their'} maps and masks mean nothing. More images or longer training may help."
        )
    open_stages = [name for name, e in mapping(facts.manifest.get("stages")).items() if dig(e, "status") != "done"]
    if open_stages:
        texts.append(f"This run is not finished: {', '.join(map(str, open_stages))}. Start it again to go on.")
    return [*texts, *diagnosis(facts)]


def _panel_choices(facts: Facts, panels: list[tables.Panel]) -> dict[str, list[tuple[str, str]]]:
    """Buttons above the class bars: only what exists, in the order of the pipeline."""
    return {
        "measure": [(m, title) for m, title in MEASURES.items() if any(p.measure == m for p in panels)],
        "split": [(split, split) for split in splits(facts.metrics) if any(p.split == split for p in panels)],
        "rule": [(rule, RULES[rule]) for rule in rules(facts.metrics)],
    }


def _group_charts(facts: Facts) -> dict[str, charts.Chart | None]:
    """Scores by groups of images, of objects and of pixels, by what the template calls them."""
    return {
        "counts": charts.count_chart(facts),
        "sizes": charts.size_chart(facts),
        "calibration": charts.calibration_chart(facts),
    }


def _score_values(facts: Facts) -> dict[str, Any]:
    """All single scores, a column per measure and split, under the first void rule that was scored."""
    void_rules = rules(facts.metrics)
    columns = {
        f"{title}, {split}": scores(facts.metrics, split, measure, void_rules[0])
        for measure, title in MEASURES.items()
        for split in (splits(facts.metrics) if void_rules else ())
    }
    columns = {title: column for title, column in columns.items() if column}
    return {"score_columns": list(columns), "score_rows": score_rows(list(columns.values()))}


def _rows(facts: Facts, part: str) -> list[tuple[str, str]]:
    return tables.flat(mapping(facts.manifest.get(part)))


def _data_rows(facts: Facts) -> list[tuple[str, str]]:
    rows = [(key, value) for key, value in _rows(facts, "data") if key != "classes"]
    return [*rows, ("classes", ", ".join(facts.classes[1:]))] if facts.classes else rows


def _gallery_values(facts: Facts, source: DataSource | None, gallery: Gallery | None) -> dict[str, Any]:
    """The gallery, the choices of its filters, and why it is empty if it is."""
    shots = gallery.shots if gallery else []
    groups = [group for group in ("best", "worst", "random") if any(shot.group == group for shot in shots)]
    labels = sorted({tag for shot in shots for tag in shot.tags})
    if source is None:
        why = "The data source was not at hand when this page was made, so there are no pictures."
    elif gallery is None:
        why = "The gallery was switched off for this page."
    else:
        why = "No maps, masks or predictions have been written yet, so there is nothing to show."
    return {
        "gallery": gallery,
        "no_gallery": why,
        "shot_groups": ["all", *groups],
        "shot_splits": ["all", *dict.fromkeys(shot.split for shot in shots)],
        "shot_classes": [(x, facts.classes[x] if x < len(facts.classes) else f"class {x}") for x in labels],
    }
