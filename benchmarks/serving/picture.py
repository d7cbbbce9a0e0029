"""The picture: what is answered in time, how soon, and how exactly, against what is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_INK = "#333333"
_COLOURS = {"offramp": "#4269d0", "fastapi": "#efb118", "litserve": "#ff725c", "null": "#9498a0"}
_LABELS = {
    "offramp": "offramp serve",
    "fastapi": "static, FastAPI with batching",
    "litserve": "static, LitServe",
    "null": "a server that computes nothing",
}
_SHOWN: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "answered in time, %": lambda row: 100 * row["in_time"],
    "p95 of what was answered, ms": lambda row: (row["latency_ms"] or {}).get("p95"),
    "accuracy of what was answered, %": lambda row: 100 * row["accuracy"] if "accuracy" in row else None,
}


def draw(rows: Sequence[dict[str, Any]], deadline_ms: float, file: Path) -> None:
    """A row for each kind of arrivals, a column for each thing that is shown."""
    kinds = list(dict.fromkeys(row["arrivals"] for row in rows))
    figure, grid = pyplot.subplots(
        len(kinds), len(_SHOWN), figsize=(12, 3.2 * len(kinds)), layout="constrained", squeeze=False
    )
    for kind, line in zip(kinds, grid, strict=True):
        for (what, of), axes in zip(_SHOWN.items(), line, strict=True):
            for server, colour in _COLOURS.items():
                own = [
                    row for row in rows if (row["server"], row["arrivals"]) == (server, kind) and of(row) is not None
                ]
                if own:
                    x, y = [row["load"] for row in own], [of(row) for row in own]
                    axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.3, label=_LABELS[server])
                    if what.startswith("accuracy"):
                        ends = [[100 * end for end in row["accuracy_interval"]] for row in own]
                        axes.vlines(x, *zip(*ends, strict=True), color=colour, linewidth=0.8)
            axes.set_ylabel(what, fontsize=9)
            axes.set_xlabel("load, of what the static model carries", fontsize=9)
            axes.set_title(kind, fontsize=10, color=_INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#dddddd", linewidth=0.6)
        line[0].set_ylim(0, 102)
        line[1].axhline(deadline_ms, color=_INK, linewidth=0.8, linestyle=":")
        line[1].set_yscale("log")
        line[2].set_ylim(65, 100)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
