"""The ``tagmask`` command. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from tagmask.cli import catalogue, compare, crf, data, evaluate, export, predict, recipes, runs, suggest, sweep
from tagmask.cli.guard import DEBUG_VARIABLE, guarded

HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="tagmask",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich costs 0.1 s of every --help
    pretty_exceptions_enable=False,
    context_settings=HELP,
)
recipe_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Recipes: list, show, validate, copy.",
    context_settings=HELP,
)
data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Data sources: check, doubt tags, make PartsWorld.",
    context_settings=HELP,
)
export_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Results in the form that others want them.",
    context_settings=HELP,
)

app.command("run")(guarded(runs.run))
app.command("suggest")(guarded(suggest.suggest))
app.command("sweep")(guarded(sweep.sweep))
app.command("status")(guarded(runs.status))
app.command("predict")(guarded(predict.predict))
app.command("crf")(guarded(crf.crf))
app.command("evaluate")(guarded(evaluate.evaluate))
app.command("report")(guarded(evaluate.report))
app.command("compare")(guarded(compare.compare))
app.command("methods")(guarded(catalogue.methods))
app.command("doctor")(guarded(catalogue.doctor))
recipe_app.command("list")(guarded(recipes.list_recipes))
recipe_app.command("show")(guarded(recipes.show))
recipe_app.command("validate")(guarded(recipes.validate))
recipe_app.command("copy")(guarded(recipes.copy))
export_app.command("onnx")(guarded(export.onnx))
export_app.command("voc-submission")(guarded(export.voc_submission))
data_app.command("check")(guarded(data.check))
data_app.command("doubts")(guarded(data.doubts))
data_app.command("make-partsworld")(guarded(data.make_partsworld))
app.add_typer(recipe_app, name="recipe")
app.add_typer(data_app, name="data")
app.add_typer(export_app, name="export")


def _show_version(show: bool) -> None:
    if show:
        from tagmask.version import version

        typer.echo(f"tagmask {version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere (or set TAGMASK_DEBUG=1).")
    ] = False,
) -> None:
    """Tags in, masks out: semantic segmentation from image-level tags."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit with the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in words:
        os.environ[DEBUG_VARIABLE] = "1"  # an environment variable reaches the processes of other ranks too
        words = [argument for argument in words if argument != "--debug"]
    # A terminal that cannot show a sign (LANG=C) gets a question mark, not a crash.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(args=words, prog_name="tagmask")
