"""Sight, sound and both at each exit on the left; three ways to ask for the sound on the right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_INK = "#333333"
_COLOURS = {"sight": "#9498a0", "both": "#4269d0", "without the clip": "#6cc5b0"}
_WAYS = {"always": "#4269d0", "never": "#9498a0", "where sight is unsure": "#ff725c"}


def draw(found: dict[str, Any], file: Path) -> None:
    """Accuracy on test pairs against multiply-adds."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11.5, 4.8), layout="constrained", sharey=True)
    for reads in ("sight", "both"):
        rows = [row for row in found["exits"] if row["reads"] == reads]
        _exits(left, rows, rows, _COLOURS[reads], reads)
        if reads == "both":
            missing = [row["without the clip"] for row in rows]
            _exits(left, rows, missing, _COLOURS["without the clip"], "both, the clip missing")
    sound = found["sound"]
    left.plot(sound["macs"] / 1e6, 100 * sound["accuracy"]["mean"], "D", color="#efb118", label="sound alone")
    left.set_title("each exit alone", fontsize=10, color=_INK)
    for name, curves in found["curves"].items():
        for number, curve in enumerate(curves):
            x, y = ([scale * point[key] for point in curve] for key, scale in (("macs", 1e-6), ("accuracy", 100)))
            right.plot(x, y, color=_WAYS[name], linewidth=1.1, marker=".", label=None if number else f"sound {name}")
    right.set_title("thresholds of validation pairs, a line a seed", fontsize=10, color=_INK)
    for axes in (left, right):
        axes.set_xlabel("MMACs a pair, heads and what encodes the sound counted")
        axes.legend(fontsize=8, frameon=False, loc="center right")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
    left.set_ylabel("test accuracy, %")
    figure.suptitle("Degraded MNIST and spoken digits, speakers that nobody heard before", color=_INK)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _exits(axes: Any, rows: list[dict[str, Any]], shown: list[dict[str, Any]], colour: str, label: str) -> None:
    x = [row["macs"] / 1e6 for row in rows]
    y = [100 * row["accuracy"]["mean"] for row in shown]
    spread = [100 * (row["accuracy"]["deviation"] or 0) for row in shown]
    axes.errorbar(x, y, spread, color=colour, marker="o", markersize=3, linewidth=1.2, label=label)
