"""Accuracy and cost of every head, and its order beside the authors'."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

import offramp
from benchmarks.multi_exit.plan import QUARTERS, SEVEN, Run
from benchmarks.multi_exit.training import Cache, build
from offramp.report import bootstrap_interval
from offramp.types import ExitTable

_RESAMPLES = 2000
BAR = 0.714
"""A rank correlation of seven that chance reaches in 4.4 of 100 cases."""


def result(cache: Cache, plan: Sequence[Run]) -> dict[str, Any]:
    """Everything, from the tables of finished runs."""
    kinds = list(dict.fromkeys((run.head, run.form) for run in plan))
    right = {kind: _right(cache, [run for run in plan if (run.head, run.form) == kind]) for kind in kinds}
    rows = [_row(cache, plan, kind, right[kind]) for kind in kinds]
    seven = {form: {head: right[head, form] for head in SEVEN} for form in ("authors", "ports")}
    final = _final(cache, plan[0])
    return {
        "backbone_accuracy": float(final.mean()),
        "backbone_interval": bootstrap_interval(final),
        "heads": rows,
        "order": {
            form: {str(place): order(found, cache.place.authors, place) for place in QUARTERS}
            for form, found in seven.items()
        },
    }


def order(
    right: Mapping[str, Mapping[int, np.ndarray]], authors: Mapping[str, Sequence[float]], place: int
) -> dict[str, Any]:
    """Spearman's correlation of our accuracies with the authors' at one place, of all seven heads and without ``mlp``.

    The interval is that over redrawn test images, the same for all heads; it knows nothing of other data or networks.

    Args:
        right: of each head, by block, which share of the seeds was right on each test image ``(images,)``.
        authors: their accuracies after the quarters of the depth.
        place: the block.
    """
    theirs = [authors[head][QUARTERS.index(place)] for head in SEVEN]
    ours = np.stack([right[head][place] for head in SEVEN])
    rng = np.random.default_rng(0)
    images = ours.shape[1]
    counts = (np.bincount(rng.integers(0, images, images), minlength=images) for _ in range(_RESAMPLES))
    redrawn = np.stack([ours @ count / images for count in counts])
    found: dict[str, Any] = {"ranks": _ranks(ours.mean(1)), "authors_ranks": _ranks(np.array(theirs))}
    for name, kept in (("seven", slice(None)), ("without_mlp", slice(1, None))):
        known = rankdata(theirs[kept])
        own, others = (_correlation(rankdata(means[:, kept], axis=1), known) for means in (ours.mean(1)[None], redrawn))
        found[name] = {"rho": float(own[0]), "interval": [float(q) for q in np.quantile(others, (0.025, 0.975))]}
    return {**found, "bar": None if place == QUARTERS[-1] else BAR}


def _correlation(ranks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row of average ranks with one row of them; 0 where all of a row are equal."""
    a, b = ranks - ranks.mean(1, keepdims=True), known - known.mean()
    lengths = np.sqrt((a**2).sum(1) * (b**2).sum())
    found: np.ndarray = np.divide(a @ b, lengths, out=np.zeros(len(a)), where=lengths > 0)
    return found


def _ranks(values: np.ndarray) -> dict[str, int]:
    """1 for the best."""
    places = (-values).argsort(kind="stable").argsort(kind="stable") + 1
    return dict(zip(SEVEN, places.tolist(), strict=True))


def _right(cache: Cache, runs: Sequence[Run]) -> dict[int, np.ndarray]:
    """By block, which share of the seeds that stand there was right on each test image."""
    found: dict[int, list[np.ndarray]] = {}
    for run in runs:
        for place, right in zip(run.places, _each(cache.table(run, "test")), strict=False):
            found.setdefault(place, []).append(right)
    return {place: np.stack(rows).mean(0) for place, rows in found.items()}


def _each(table: ExitTable) -> list[np.ndarray]:
    return [(output.argmax(1) == table.targets).double().numpy() for output in table.each()]


def _final(cache: Cache, run: Run) -> np.ndarray:
    return _each(cache.table(run, "test"))[-1]


def _row(cache: Cache, plan: Sequence[Run], kind: tuple[str, str], right: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """What one kind of head costs and is worth after each block."""
    own = [run for run in plan if (run.head, run.form) == kind]
    model = build(own[0], cache.place, None, len(cache.splits.classes or ()))
    costs = offramp.profile(model, repeats=0)
    single = {run.seed: dict(zip(run.places, _each(cache.table(run, "test")), strict=False)) for run in own}
    exits = []
    for k, place in enumerate(own[0].places):
        seeds = [float(rows[place].mean()) for rows in single.values() if place in rows]
        exits.append(
            {
                "after": place,
                "macs": costs.in_chain().alone(k),
                "head_macs": costs.macs.heads[k],
                "parameters": sum(p.numel() for p in model.heads[k].parameters()),
                "accuracy": statistics.fmean(seeds),
                "deviation": statistics.stdev(seeds) if len(seeds) > 1 else None,
                "interval": bootstrap_interval(right[place]),
                "seeds": len(seeds),
            }
        )
    return {"head": kind[0], "form": kind[1], "options": dict(own[0].options), "exits": exits}


def frontier(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of all heads at all places those that no other beats in both accuracy and cost, the cheapest first."""
    points = [{"head": row["head"], "form": row["form"], **e} for row in rows for e in row["exits"]]
    best, kept = -1.0, []
    for point in sorted(points, key=lambda p: (p["macs"], -p["accuracy"])):
        if point["accuracy"] > best:
            best = point["accuracy"]
            kept.append({key: point[key] for key in ("head", "form", "after", "macs", "accuracy")})
    return kept
