"""The result as a picture: promises kept and broken, and a monitor at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.guarantees.watching import zeros_and_ones
from offramp.calibration import Monitor

_INK, _KEPT, _BROKEN = "#333333", "#4269d0", "#ff725c"
_RISK, _QUIET, _AFTER = 0.01, 20_000, 8_000


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Violations by method on the left, the evidence of one stream on the right."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    _violations(left, [r for r in rows if r["about"] == "promise" and r["loss"] == "disagreement"])
    _stream(right)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _violations(axes: Axes, rows: list[dict[str, Any]]) -> None:
    short = {"last passed": "{}", "first failed": "{}, first that failed"}
    names: list[str] = []
    for row in rows:
        name = short.get(row["returns"], "{}, rows not shuffled").format(row["method"])
        names += [] if name in names else [name]
        kept = row["promise_kept"] if row["method"] in ("ucb", "ltt") else None
        colour = {True: _KEPT, False: _BROKEN, None: "#aaaaaa"}[kept]
        offset = -0.18 if row["order"] == "shuffled" else 0.18
        hatch = None if row["order"] == "shuffled" else "///"
        axes.barh(names.index(name) + offset, 100 * row["violations"], 0.34, color=colour, hatch=hatch, edgecolor="w")
    axes.axvline(100 * rows[0]["delta"], color=_INK, linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("thresholds whose true risk is above the promise, %")
    line = f"line: the {100 * rows[0]['delta']:g} % that ucb and ltt promise"
    axes.set_title(f"{line}; hatched: class by class", fontsize=10, color=_INK)
    _plain(axes)


def _stream(axes: Axes) -> None:
    rng = np.random.default_rng(1)
    losses = np.concatenate([zeros_and_ones(rng, _QUIET, _RISK), zeros_and_ones(rng, _AFTER, 2 * _RISK)])
    watch, steps, wealth = Monitor(_RISK), [0], [1.0]
    for block in losses.reshape(-1, 20):
        watch = watch.update(block)
        steps.append(watch.at or watch.samples)
        wealth.append(watch.wealth)
        if watch.alarm:
            break
    axes.semilogy(steps, wealth, color=_KEPT)
    axes.axhline(1 / watch.level, color=_BROKEN, linewidth=1)
    axes.axvline(_QUIET, color=_INK, linewidth=1, linestyle=":")
    axes.text(200, 1.15 / watch.level, f"alarm at {1 / watch.level:g}", color=_BROKEN, fontsize=8)
    axes.text(_QUIET - 200, 3, "the risk doubles", ha="right", color=_INK, fontsize=8)
    axes.set_ylim(0.05, 3 / watch.level)
    axes.set_xlabel(f"answers; the alarm comes {(watch.at or 0) - _QUIET:,} after the shift")
    axes.set_ylabel("evidence against the promise")
    axes.set_title(f"one stream: {100 * _RISK:g} % promised and kept, then {200 * _RISK:g} %", fontsize=10, color=_INK)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK)
