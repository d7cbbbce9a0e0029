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
    """Accuracy on test pairs against multiply-adds, a line a seed: speakers differ more than anything else."""
    figure, panels = pyplot.subplots(1, 2, figsize=(11.5, 5.4), layout="constrained", sharey=True)
    left, right = panels
    for reads in ("sight", "both"):
        rows = [row for row in found["exits"] if row["reads"] == reads]
        _exits(left, rows, rows, _COLOURS[reads], reads)
        if reads == "both":
            missing = [row["without the clip"] for row in rows]
            _exits(left, rows, missing, _COLOURS["without the clip"], "both, the clip missing")
    sound = found["sound"]
    each = [100 * accuracy for accuracy in sound["accuracy"]["each"]]
    left.plot([sound["macs"] / 1e6] * len(each), each, "D", color="#efb118", markersize=4, label="sound alone")
    left.set_title("each exit alone", fontsize=10, color=_INK)
    for name, curves in found["curves"].items():
        for number, curve in enumerate(curves):
            x, y = ([scale * point[key] for point in curve] for key, scale in (("macs", 1e-6), ("accuracy", 100)))
            right.plot(x, y, color=_WAYS[name], linewidth=1.1, marker=".", label=None if number else f"sound {name}")
    right.set_title("thresholds of validation pairs", fontsize=10, color=_INK)
    for axes in panels:
        axes.set_xlabel("MMACs a pair, heads and what encodes the sound counted")
        axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
    left.set_ylabel("test accuracy, %")
    figure.suptitle("Degraded MNIST and spoken digits, a line a speaker that nobody heard before", color=_INK)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _exits(axes: Any, rows: list[dict[str, Any]], shown: list[dict[str, Any]], colour: str, label: str) -> None:
    x = [row["macs"] / 1e6 for row in rows]
    for seed in range(len(shown[0]["accuracy"]["each"])):
        y = [100 * row["accuracy"]["each"][seed] for row in shown]
        axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.1, label=None if seed else label)
