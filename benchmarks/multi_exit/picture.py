"""The comparison as a picture: accuracy against multiply-adds to the exit, and the order beside the authors'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.multi_exit.plan import QUARTERS, SEVEN

_INK = "#333333"
_COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
    "#333333",
)


def draw(result: dict[str, Any], name: str, file: Path) -> None:
    """Curves of all heads on the left, ranks of the seven on the right."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12.5, 5.4), layout="constrained", width_ratios=(1.6, 1))
    _curves(left, result)
    _order(right, result["order"]["authors"])
    figure.suptitle(f"{name}, frozen ViT-Ti/16: heads trained one by one", color=_INK)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _curves(axes: Axes, result: dict[str, Any]) -> None:
    rows = [row for row in result["heads"] if row["form"] != "ports"]
    for row, colour in zip(rows, _COLOURS, strict=True):
        x = [e["macs"] / 1e6 for e in row["exits"]]
        y = [100 * e["accuracy"] for e in row["exits"]]
        style = "-" if row["form"] == "authors" else "--"
        axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.2, label=row["head"])
    axes.axhline(100 * result["backbone_accuracy"], color=_INK, linewidth=0.8, linestyle=":", label="the backbone")
    axes.set_xlabel("MMACs to the exit, its head counted")
    axes.set_ylabel("test accuracy, %")
    axes.legend(fontsize=8, frameon=False, ncols=2)
    _plain(axes)


def _order(axes: Axes, order: dict[str, Any]) -> None:
    for head, colour in zip(SEVEN, _COLOURS, strict=False):
        for number, place in enumerate(QUARTERS):
            ranks = [order[str(place)]["authors_ranks"][head], order[str(place)]["ranks"][head]]
            axes.plot([3 * number, 3 * number + 1], ranks, color=colour, marker="o", markersize=4)
        axes.text(-0.15, order[str(QUARTERS[0])]["authors_ranks"][head], head, ha="right", va="center", fontsize=8)
    for number, place in enumerate(QUARTERS):
        rho = order[str(place)]["seven"]["rho"]
        axes.text(3 * number + 0.5, 0.3, f"block {place}, ρ {rho:.2f}", ha="center", fontsize=9, color=_INK)
    axes.set_xticks([3 * n + side for n in range(3) for side in (0, 1)], ["authors", "here"] * 3, fontsize=8)
    axes.set_ylim(7.5, 0)
    axes.set_xlim(-2.4, 7.4)
    axes.set_ylabel("rank of the seven heads")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.tick_params(colors=_INK)
