"""The comparison as a picture: accuracy against multiply-adds, and against measured time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

_INK = "#333333"
_LINES = {
    "cascade of paths": ("#4269d0", "-"),
    "cascade of two paths, linked": ("#4269d0", "--"),
    "routed: cnn, labels": ("#ff725c", "-"),
    "routed: cnn, Gumbel": ("#ff725c", "--"),
    "routed: exit, labels": ("#efb118", "-"),
    "exits only": ("#6cc5b0", "-"),
    "tails and exits": ("#3ca951", "-"),
}

_MARKS = {"cascade of two paths, linked": "s", "routed, then cascade: cnn, labels": "v"}


def draw(result: dict[str, Any], name: str, file: Path) -> None:
    """MACs on the left; beside it measured speed-up, in each runtime and precision that was timed."""
    ways = list(dict.fromkeys((row["runtime"], row["precision"]) for row in result["times"]))
    figure, panels = pyplot.subplots(
        1, 1 + len(ways), figsize=(5.6 * (1 + len(ways)), 5), layout="constrained", squeeze=False, sharey=True
    )
    _macs(panels[0][0], result)
    for axes, way in zip(panels[0][1:], ways, strict=True):
        _times(axes, result, way)
    figure.suptitle(f"{name}, ViT-Ti/16: budgets met on validation, test data read once", color=_INK)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _macs(axes: Axes, result: dict[str, Any]) -> None:
    for method, (colour, style) in _LINES.items():
        rows = [row for row in result["methods"][method].values() if row is not None]
        points = [(row["macs_speedup"]["mean"], 100 * row["accuracy"]["mean"]) for row in rows]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, marker="o", markersize=3.5, label=method)
    for rows, marker, label in (
        (result["tails_alone"], "s", "one tail for all"),
        (result["smaller_images"], "D", "the backbone alone, by size of image"),
    ):
        points = [(row["macs_speedup"]["mean"], 100 * row["accuracy"]["mean"]) for row in rows.values()]
        axes.plot(*zip(*points, strict=True), marker, color=_INK, markersize=5, fillstyle="none", label=label)
    points = [(row["macs_speedup"]["mean"], 100 * row["accuracy"]["mean"]) for row in result["merged"]]
    axes.plot(*zip(*points, strict=True), "x", color=_INK, label="tokens merged, not trained for it")
    lowest = min(100 * row["accuracy"]["mean"] for row in result["tails_alone"].values())
    axes.set_ylim(lowest - 2, None)
    axes.set_xlabel("MACs speed-up, everything counted")
    axes.set_ylabel("test accuracy, mean over seeds, %")
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")
    _plain(axes)


def _times(axes: Axes, result: dict[str, Any], way: tuple[str, str]) -> None:
    """One seed: filled at batch 64, hollow at batch 1."""
    lowest, low = axes.get_ylim()[0], []
    for row in (row for row in result["times"] if (row["runtime"], row["precision"]) == way):
        if 100 * row["accuracy"] < lowest:
            low.append(
                f"{row['method']}, batch {row['batch']}: {100 * row['accuracy']:.1f} % at {row['measured_speedup']:.2f}"
            )
            continue
        fill, large = ("full", True) if row["batch"] > 1 else ("none", False)
        colour, _ = _LINES.get(row["method"], ("#a463f2", "-"))
        label = row["method"] if large else None
        axes.plot(
            row["measured_speedup"],
            100 * row["accuracy"],
            _MARKS.get(row["method"], "o"),
            color=colour,
            fillstyle=fill,
            label=label,
        )
        for rival, accuracy in row["rivals"].items():
            marker = "x" if rival.startswith("merging") else "D"
            x = row["static_ms"] / row[f"{rival}_ms"]
            axes.plot(x, 100 * accuracy, marker, color=_INK, markersize=5, fillstyle=fill)
            if large:
                axes.annotate(
                    rival, (x, 100 * accuracy), fontsize=7, color=_INK, xytext=(4, 3), textcoords="offset points"
                )
    axes.text(1, 0.02, "\n".join(low), transform=axes.transAxes, ha="right", fontsize=7.5, color=_INK)
    axes.set_title(f"{way[0]} {way[1]}, policies for 2.5 × fewer MACs", fontsize=10, color=_INK)
    axes.set_xlabel("measured speed-up; filled: batch 64, hollow: batch 1")
    axes.legend(fontsize=7.5, frameon=False, loc="upper right")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.tick_params(colors=_INK)
