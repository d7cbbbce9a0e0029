"""Accuracy against measured milliseconds an image, for batches of 64 and of 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_INK = "#333333"
_COLOURS = ("#4269d0", "#97bbf5", "#a463f2", "#efb118", "#6cc5b0", "#9c6b4e", "#ff725c", "#3ca951")
_MARKS = {"exits": "D", "tails": "^", "tails and exits": "o"}
_ALONE = {"6 of 12 blocks": "v", "EfficientNet-Lite0": "P"}
_SMALLER = "s"
"""Of the network alone, at any size."""


def draw(rows: Sequence[dict[str, Any]], name: str, file: Path) -> None:
    """One colour for each runtime and precision, one mark for each method; networks alone are hollow.

    Of the policies of a method it shows the first, which may lose most.
    """
    rows = list({(row["runtime"], row["precision"], row["method"]): row for row in reversed(rows)}.values())[::-1]
    places = list(dict.fromkeys(f"{row['runtime']}, {row['precision']}" for row in rows))
    colours = dict(zip(places, _COLOURS, strict=False))
    figure, panels = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained", sharey=True)
    for axes, batch in zip(panels, ("64", "1"), strict=True):
        for row in rows:
            place, method = f"{row['runtime']}, {row['precision']}", row["method"]
            alone = method not in _MARKS
            mark = _MARKS.get(method) or _ALONE.get(method, _SMALLER)
            milliseconds = row["batches"][batch]["dynamic_ms"] / int(batch)
            axes.plot(
                milliseconds,
                100 * row["batches"][batch]["accuracy"],
                mark,
                color=colours[place],
                fillstyle="none" if alone else "full",
                markersize=5 if alone else 8,
            )
        axes.set_xlabel(f"milliseconds an image, batch {batch}")
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.tick_params(colors=_INK)
    panels[0].set_ylabel("test accuracy, %")
    for place, colour in colours.items():
        panels[1].plot([], [], "-", linewidth=3, color=colour, label=place)
    there = {row["method"] for row in rows}
    plain = {"alone, three sizes": _SMALLER, **{name: mark for name, mark in _ALONE.items() if name in there}}
    for method, mark in (*plain.items(), *_MARKS.items()):
        panels[1].plot([], [], mark, color=_INK, fillstyle="none" if method in plain else "full", label=method)
    panels[1].legend(fontsize=8, frameon=False, loc="lower right")
    figure.suptitle(name, color=_INK)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
