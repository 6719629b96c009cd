"""Write the table of docs/functional.md from the docstrings of tagmask.functional: python docs/tables/functional.py"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from tagmask import functional

PAGE = Path(__file__).resolve().parent.parent / "functional.md"
BEGIN, END = "<!-- functions: python docs/tables/functional.py -->\n", "<!-- end of functions -->\n"
#: Shared maths that a paper brought, by the folder of the method that it belongs to.
PAPER_OF = {"random_walk": "irnet", "merge_scales": "irnet", "normalize_maps": "irnet"}
SHAPE = re.compile(r"\[[A-Za-z.][^\]]*\]|^\((?:H, W|y, x)\)|\(top, left, bottom, right\)")  # no interval


def table() -> str:
    """Markdown: one row per function, then every signature."""
    rows = ["| function | what it gives | from | to | source |", "|---|---|---|---|---|"]
    rows += [row(name, getattr(functional, name)) for name in functional.__all__]
    signatures = [signature(name, getattr(functional, name)) for name in functional.__all__]
    return "\n".join([*rows, "", "```", *signatures, "```", ""])


def row(name: str, function: Any) -> str:
    """One function: its first sentence, the shapes of what it takes and gives, its paper."""
    does = inspect.cleandoc(function.__doc__).partition("\n\n")[0].replace("\n", " ").replace("``", "`")
    does = re.sub(r":\w+:`(\w+)`", r"`\1`", re.split(r"\.(?: (?=[A-Z])|$)", does)[0])
    does = re.sub(r" \(docs/[^)]*\)|, docs/[^)]*", "", does).replace("|", "\\|")
    called = function.update if inspect.isclass(function) else function
    takes = [f"`{key}` {shapes(text)}" for key, text in arguments(called) if SHAPE.search(text)]
    gives = inspect.cleandoc(called.__doc__).partition("Returns:\n")[2].partition("\n\n")[0]
    result = ", ".join(f"`{key}()`" for key in vars(function) if key[0] != "_") if called != function else shapes(gives)
    paper, page = source_of(name, function)
    shown = f"[`{name}`]({page})" if page else f"`{name}`"
    return f"| {shown} | {does} | {', '.join(takes)} | {result} | {paper} |"


def shapes(text: str) -> str:
    """All shapes of a text; those of a function with an arrow between them."""
    if not SHAPE.search(text):
        return "as `maps`" if text.lstrip().startswith("same shape") else "scalar" if "scalar" in text else ""
    return (" → " if "->" in text else ", ").join(f"`{shape}`" for shape in SHAPE.findall(text))


def arguments(function: Any) -> list[tuple[str, str]]:
    """(name, description) of the arguments that a docstring describes."""
    block = inspect.cleandoc(function.__doc__).partition("Args:\n")[2].partition("\n\n")[0]
    return [(key, " ".join(text.split())) for key, text in re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", block, re.M)]


def signature(name: str, function: Any) -> str:
    """A call with every default, without types."""
    bare = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    return name + str(inspect.Signature(bare))


def source_of(name: str, function: Any) -> tuple[str, str]:
    """Paper and page of the method whose folder holds the function, where it is one's."""
    parts = function.__module__.split(".")
    folder = PAPER_OF.get(name) or (parts[2] if parts[1] == "methods" else "")
    if not folder:
        return "", ""
    method = importlib.import_module(f"tagmask.methods.{folder}").METHODS[0]
    return method.paper, method.page


def write(text: str) -> str:
    """The page's text with today's table in it."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(write(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
