"""``tagmask methods`` and ``tagmask doctor``."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from tagmask.errors import UnknownNameError


def methods(
    kind: Annotated[
        str | None, typer.Option("--kind", help="Only data, head, localizer, refiner, network, loss or saliency.")
    ] = None,
) -> None:
    """List all methods, with their papers."""
    from tagmask import registry
    from tagmask.cli.terminal import print_table
    from tagmask.registry import Kind

    kinds = get_args(Kind)
    if kind is not None and kind not in kinds:
        raise UnknownNameError("kind of method", kind, kinds)
    rows = [
        (one, name, entry.summary, entry.paper)
        for one in kinds
        if kind in (None, one)
        for name, entry in registry.entries(one).items()
    ]
    print_table(("kind", "name", "what it does", "paper"), rows)


def doctor() -> None:
    """Check this machine: versions, devices, disk.

    Says what is missing and what to do about it. Exits with 1 if anything is wrong."""
    from tagmask.cli.doctor import diagnose
    from tagmask.cli.terminal import print_table

    findings = diagnose()
    print_table(("what", "found"), [(finding.what, finding.value) for finding in findings])
    for finding in findings:
        if finding.remedy:
            mark = "note" if finding.ok else "WRONG"
            typer.echo(f"{mark}: {finding.what}: {finding.remedy}")
    wrong = sum(not finding.ok for finding in findings)
    typer.echo("all that tagmask needs is here" if not wrong else f"{wrong} wrong")
    if wrong:
        raise typer.Exit(1)
