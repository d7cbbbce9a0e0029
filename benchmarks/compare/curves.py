"""The comparison as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.compare.plan import METHODS

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2")
_INK = "#333333"


def draw(result: dict[str, Any], data: str, folder: Path) -> None:
    """``compare-methods.png`` and ``compare-heads.png``."""
    _methods(result, data, folder / "compare-methods.png")
    _heads(result, data, folder / "compare-heads.png")


def _methods(result: dict[str, Any], data: str, file: Path) -> None:
    layouts = result["methods"]
    figure, grid = pyplot.subplots(1, len(layouts), figsize=(5 * len(layouts), 4.6), sharey=True, layout="constrained")
    others = {
        "linear": {"self-distillation from scratch (recommended)": result["recommended"]},
        "lgvit": {"lgvit, faithful": result["faithful_lgvit"]},
    }
    for axes, (layout, rows) in zip(grid, layouts.items(), strict=True):
        for method, colour in zip(METHODS, _COLOURS, strict=True):
            axes.plot(*_points(rows[method]), marker="o", markersize=3.5, color=colour, label=method)
        for label, row in others.get(layout, {}).items():
            axes.plot(*_points(row), marker="s", markersize=3.5, color=_INK, linestyle="--", label=label)
            axes.legend([axes.lines[-1]], [label], fontsize=8, frameon=False, loc="lower left")
        small, whole = result["smaller_static"], result["static"]
        axes.plot(whole["macs"] / small["macs"], 100 * small["accuracy"], "k*", markersize=10, label="smaller static")
        axes.plot(1, 100 * whole["accuracy"], "kD", markersize=6, label="static")
        axes.set_title(f"{'LGViT layout' if layout == 'lgvit' else layout + ' heads'}", color=_INK)
        axes.set_xlabel("MACs speed-up on test data, heads counted")
        _plain(axes)
    grid[0].set_ylabel("test accuracy, %")
    grid[-1].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{data}, {result['backbone']['name']}: ways of training, thresholds from validation data")
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def _heads(result: dict[str, Any], data: str, file: Path) -> None:
    rows = result["heads"]["rows"]
    figure, axes = pyplot.subplots(figsize=(8, 5.2), layout="constrained")
    styles = ("-", "--", ":")
    for i, (head, row) in enumerate(rows.items()):
        exits = row["exits"][:-1]
        axes.errorbar(
            [e["macs"] / 1e6 for e in exits],
            [100 * e["accuracy"]["mean"] for e in exits],
            [100 * e["accuracy"]["deviation"] for e in exits],
            marker="o",
            markersize=4,
            capsize=2,
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=styles[i // len(_COLOURS)],
            label=head,
        )
    final = next(iter(rows.values()))["exits"][-1]
    axes.plot(final["macs"] / 1e6, 100 * final["accuracy"]["mean"], "kD", label="final exit")
    axes.set_xlabel("MMACs to the exit, its head counted")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"{data}, {result['backbone']['name']}:\nheads on one frozen backbone, mean ± deviation over seeds")
    axes.legend(fontsize=8, frameon=False, ncols=2)
    _plain(axes)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def _points(row: dict[str, Any]) -> tuple[list[float], list[float]]:
    points = sorted((p["macs_speedup"], 100 * p["accuracy"]) for p in row["curve"])
    return [x for x, _ in points], [y for _, y in points]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.tick_params(colors=_INK)
