"""offramp list: every name there is."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.cli._shared import Json, emit, table
from offramp.errors import UsageError
from offramp.registry import MODELS, TABLES, unknown

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
    elif kind == "models":
        for row in rows:
            row |= _model(MODELS.resolve(row["name"]))
        columns = ["name", "data", "accuracy", "MACs speed-up", "bytes", "about"]
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
        table(kind, columns, [[str(r[column]) for column in columns] for r in rows], numbers=False)


def _model(folder: Path) -> dict[str, Any]:
    """What the files of a model in the box say of it, on the data that it was calibrated on."""
    config, policy = (json_module.loads((folder / name).read_text()) for name in ("config.json", "policy.json"))
    expected = policy["provenance"]["expected"]
    data = policy["provenance"]["data"]
    return {
        "data": f"{data['data']}, {data['split']}",
        "backbone": config["backbone"]["name"],
        "exits_after": [e["after"] for e in config["exits"]],
        "accuracy": round(expected["accuracy"], 4),
        "MACs speed-up": round(expected["macs_speedup"], 2),
        "bytes": (folder / "model.safetensors").stat().st_size,
    }
