"""offramp list: every name there is."""

from __future__ import annotations

from typing import Annotated

import typer

from offramp.cli._shared import Json, emit, table
from offramp.errors import UsageError
from offramp.registry import TABLES, unknown

EXAMPLE = "offramp list heads"


def command(
    kind: Annotated[str, typer.Argument(help=", ".join(TABLES) + ".")],
    json: Json = False,
) -> None:
    """List the names of one kind, the paper each is from, and what it is."""
    if kind not in TABLES:
        raise UsageError(unknown("list of", kind, TABLES))
    rows = [{"name": name, "paper": entry.paper, "about": entry.about} for name, entry in TABLES[kind].items()]
    if json:
        emit(rows)
    else:
        table(kind, ["name", "paper", "about"], [[r["name"], r["paper"], r["about"]] for r in rows], numbers=False)
