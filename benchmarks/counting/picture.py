"""Errors of all exits against their cost, one panel a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_INK = "#333333"


def draw(found: dict[str, Any], file: Path) -> None:
    """Each exit's MAE, the trivial predictor's, and where policies lie."""
    size = (4.2 * len(found), 4.2)
    figure, panels = pyplot.subplots(1, len(found), figsize=size, layout="constrained", squeeze=False)
    for axes, (name, row) in zip(panels[0], found.items(), strict=True):
        exits = row["exits"]
        macs = [e["macs"] / 1e6 for e in exits]
        mae = [e["mae"]["mean"] for e in exits]
        low, high = ([abs(m - e["interval"][i]) for m, e in zip(mae, exits, strict=True)] for i in (0, 1))
        axes.errorbar(macs, mae, [low, high], color="#4269d0", marker="o", markersize=4, label="exits")
        axes.axhline(row["trivial"]["mae"], color=_INK, linestyle=":", linewidth=0.9, label="always the mean number")
        for policy, mark in zip(row["policies"], "sD^v", strict=False):
            if "out_of_reach" not in policy:
                x = macs[-1] / policy["macs_speedup"]["mean"]
                label = f"{policy['rule']}, {100 * policy['more']:g} % more"
                axes.plot(x, mae[-1] + policy["change"], mark, color="#ff725c", markersize=6, label=label)
        axes.set_ylim(bottom=0)
        axes.set_title(name, fontsize=10, color=_INK)
        axes.set_xlabel("MMACs, heads counted")
        axes.set_ylabel("MAE, heads a frame")
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
