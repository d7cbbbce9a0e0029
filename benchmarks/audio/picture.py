"""The comparison as a picture: accuracy against multiply-adds to the exit, and what copycat adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.audio.plan import TAUGHT

_INK = "#333333"
_OURS = dict(zip(TAUGHT, ("#4269d0", "#9c6b4e"), strict=True))
_OTHERS = ("#9498a0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#3ca951", "#ff8ab7", "#97bbf5")


def draw(found: dict[str, Any], name: str, file: Path) -> None:
    """Every head with all labels on the left, few labels with and without copycat on the right."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11.5, 4.8), layout="constrained")
    whole = [row for row in found["heads"] if row["way"] == "all"]
    others = iter(_OTHERS)
    for row in whole:
        _line(left, row, _OURS.get(row["head"]) or next(others), row["head"])
    static = 100 * found["static"]["accuracy"]["mean"]
    left.axhline(static, color=_INK, linewidth=0.8, linestyle=":", label="the network")
    left.set_title("heads on the frozen network, all labels", fontsize=10, color=_INK)
    for head, colour in _OURS.items():
        for way, style in (("few", "--"), ("copycat", "-")):
            row = next(row for row in found["heads"] if (row["head"], row["way"]) == (head, way))
            _line(right, row, colour, f"{head}, {way}", style)
    right.set_title("labels of a quarter of the speakers", fontsize=10, color=_INK)
    for axes in (left, right):
        axes.set_xlabel("MMACs to the exit, its head counted")
        axes.set_ylabel("test accuracy, %")
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
    figure.suptitle(name, color=_INK)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _line(axes: Axes, row: dict[str, Any], colour: str, label: str, style: str = "-") -> None:
    x = [e["macs"] / 1e6 for e in row["exits"]]
    y = [100 * e["accuracy"]["mean"] for e in row["exits"]]
    spread = [100 * (e["accuracy"]["deviation"] or 0) for e in row["exits"]]
    axes.errorbar(x, y, spread, color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.2, label=label)
