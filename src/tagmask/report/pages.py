"""What all HTML pages share: templates, style, colours of classes."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tagmask.storage.pictures import voc_palette

_TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """Templates with everything escaped; an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_css() -> Markup:
    """The style sheet of all pages (ours, so it is not escaped)."""
    return Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))


def class_colours() -> list[str]:
    """CSS colours of mask labels 0..255, PASCAL VOC's."""
    flat = voc_palette()
    return [f"rgb({flat[i]} {flat[i + 1]} {flat[i + 2]})" for i in range(0, len(flat), 3)]
