"""A picture of what can be had, and of what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offramp.errors import UsageError
from offramp.tasks import Task

_INK, _LINE, _CHOICE = "#333333", "#4269d0", "#ff725c"


def draw_frontier(
    points: Sequence[tuple[float, float]],
    static: float,
    chosen: tuple[float, float],
    task: Task,
    path: str | Path,
    unit: str = "macs",
) -> None:
    """The metric over the speed-up for thresholds that no others beat, with the chosen policy on it.

    Args:
        points: speed-up and metric of each point of the frontier.
        static: the metric of the final exit alone.
        chosen: speed-up and metric of the chosen policy.
        task: what the metric is.
        path: of the picture; its suffix says which kind.
        unit: what the speed-up is counted in.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("pictures need matplotlib: pip install 'offramp[report]'") from error
    scale = 100 if task.unit == "%" else 1
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes: Any = figure.add_subplot()
    ordered = sorted(points)
    axes.plot([s for s, _ in ordered], [scale * m for _, m in ordered], color=_LINE, marker="o", markersize=3.5)
    axes.axhline(scale * static, color=_INK, linewidth=0.8, linestyle=":")
    axes.plot(1.0, scale * static, marker="D", color=_INK)
    axes.annotate("the final exit alone", (1.0, scale * static), (8, 5), textcoords="offset points", color=_INK)
    axes.plot(chosen[0], scale * chosen[1], marker="o", markersize=10, color=_CHOICE)
    axes.annotate(
        f"chosen: {chosen[0]:.2f}×, {scale * chosen[1]:.2f}",
        (chosen[0], scale * chosen[1]),
        (-8, -17),
        textcoords="offset points",
        horizontalalignment="right",
        color=_CHOICE,
    )
    axes.set_xlabel(f"{'MACs' if unit == 'macs' else 'time'} speed-up on the calibration samples")
    axes.set_ylabel(f"{task.metric}{', %' if task.unit == '%' else ''}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.tick_params(colors=_INK)
    figure.savefig(path, dpi=130)
