"""Errors of all heads against their cost, one panel a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_INK = "#333333"


def draw(found: dict[str, Any], file: Path) -> None:
    """Each kind's errors against their cost, the network's own and the trivial predictor's, one panel a split."""
    size = (4.2 * len(found), 4.2)
    figure, panels = pyplot.subplots(1, len(found), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, (name, row) in zip(panels[0], found.items(), strict=True):
        for kind, exits in row["exits"].items():
            macs = [e["macs_of_a_frame"] / 1e9 for e in exits]
            axes.plot(macs, [e["mae"]["mean"] for e in exits], marker="o", markersize=3, linewidth=1.2, label=kind)
        final = row["final"]
        low, high = (abs(final["mae"]["mean"] - bound) for bound in final["interval"])
        at = [row["macs_of_a_frame"] / 1e9]
        axes.errorbar(at, [final["mae"]["mean"]], [[low], [high]], color=_INK, marker="s", markersize=4, label="final")
        axes.axhline(row["trivial"]["mae"], color=_INK, linestyle=":", linewidth=0.9, label="always the mean number")
        axes.set_title(name, fontsize=10, color=_INK)
        axes.set_xlabel("GMACs a frame, heads counted")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
    panels[0][0].set_ylim(bottom=0)
    panels[0][0].set_ylabel("MAE, heads a frame")
    panels[0][-1].legend(fontsize=7, frameon=False)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
