"""offramp list: every name there is."""

from __future__ import annotations

from typing import Annotated, Any

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
    rows: list[dict[str, Any]] = [
        {"name": name, "paper": entry.paper, "about": entry.about} for name, entry in TABLES[kind].items()
    ]
    columns = ["name", "paper", "about"]
    if kind == "heads":
        from offramp.cost import head_costs

        for row, (parameters, macs) in zip(rows, head_costs().values(), strict=True):
            row |= {"parameters": parameters, "macs": macs}
    if json:
        emit(rows)
    elif kind == "heads":
        cells = [
            [r["name"], r["paper"], f"{r['parameters'] / 1e6:.2f} M", f"{r['macs'] / 1e6:.1f} M", r["about"]]
            for r in rows
        ]
        title = "heads; parameters and MACs after a block of ViT-B/16 at 224 px, 100 classes"
        table(title, ["name", "paper", "parameters", "MACs", "about"], cells, numbers=False)
    else:
        table(kind, columns, [[r["name"], r["paper"], r["about"]] for r in rows], numbers=False)
