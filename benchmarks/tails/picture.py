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


def draw(result: dict[str, Any], name: str, file: Path) -> None:
    """MACs on the left; on the right measured speed-up where something was timed."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    _macs(left, result)
    _times(right, result["times"])
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


def _times(axes: Axes, rows: list[dict[str, Any]]) -> None:
    styles = {("onnxruntime", 1): "o", ("onnxruntime", 64): "s", ("openvino", 1): "^", ("openvino", 64): "D"}
    for (runtime, batch), marker in styles.items():
        own = [row for row in rows if (row["runtime"], row["batch"]) == (runtime, batch)]
        for row in own:
            axes.plot(
                row["macs_speedup"],
                row["measured_speedup"],
                marker,
                color=_LINES.get(row["method"], ("#a463f2", "-"))[0],
                markersize=5,
                label=f"{runtime}, batch {batch}" if row is own[0] else None,
            )
    highest = max((row["macs_speedup"] for row in rows), default=1.0)
    axes.plot([1, highest], [1, highest], color=_INK, linewidth=0.8)
    axes.set_xlabel("MACs speed-up")
    axes.set_ylabel("measured speed-up; on the line every multiply-add saved is time saved")
    axes.legend(fontsize=7.5, frameon=False)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.tick_params(colors=_INK)
