"""The ways as a picture: what became of the final exit, and accuracy against multiply-adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_INK = "#333333"
_COLOURS = ("#4269d0", "#6cc5b0", "#efb118", "#9c6b4e", "#ff725c", "#a463f2", "#97bbf5", "#3ca951")


def draw(rows: dict[str, Any], name: str, file: Path) -> None:
    """Changes of the final exit with their intervals on the left, policies on the right."""
    ways = [way for way in rows if way != "fine-tuned"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), layout="constrained", width_ratios=(1, 1.4))
    for place, (way, colour) in enumerate(zip(ways, _COLOURS, strict=True)):
        change = rows[way]["final_against_fine_tuned"]
        low, high = (100 * bound for bound in change["interval"])
        left.plot([low, high], [place, place], color=colour)
        left.plot(100 * change["change"], place, "o", color=colour)
        policies = [p for p in rows[way]["policies"].values() if p is not None]
        points = sorted((p["macs_speedup"]["mean"], 100 * p["accuracy"]["mean"]) for p in policies)
        if points:
            right.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=way)
    left.set_yticks(range(len(ways)), ways)
    left.invert_yaxis()
    left.axvline(0, color=_INK, linewidth=0.8)
    left.set_xlabel("final exit against the fine-tuned network, points")
    right.plot(1, 100 * rows["fine-tuned"]["accuracy"]["mean"], "s", color=_INK, fillstyle="none", label="fine-tuned")
    right.set_xlabel("MACs speed-up")
    right.set_ylabel("test accuracy, mean over seeds, %")
    right.legend(fontsize=8, frameon=False, loc="lower left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.tick_params(colors=_INK)
    figure.suptitle(f"{name}, ViT-Ti/16: exits for a fine-tuned network", color=_INK)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
