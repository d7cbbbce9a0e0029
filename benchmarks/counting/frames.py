"""Frames by camera and day."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.counting.plan import Split
from offramp.data import Samples, Splits
from offramp.data.arrays import read_arrays
from offramp.data.npz import read_npz
from offramp.data.samples import complete
from offramp.inputs import PointsInput


def everything(source: str) -> tuple[Samples, np.ndarray, np.ndarray]:
    """All frames, the camera of each and its day. A name is ``C-YYYYMMDDhhmmss``.

    Args:
        source: an ``.npz`` file with points and names.
    """
    parts, _ = read_npz(Path(source), PointsInput)
    arrays = read_arrays(Path(source), ("names", "split"))[0]
    order = np.concatenate([np.flatnonzero(arrays["split"] == name) for name in parts]) if "split" in arrays else None
    names = arrays["names"] if order is None else arrays["names"][order]
    whole = _joined(list(parts.values()))
    return whole, np.array([int(name[0]) for name in names]), np.array([name[2:10] for name in names])


def cut(place: Split, source: str) -> Splits:
    """Frames to train, calibrate and test on: no day of the training camera stands in two of them."""
    whole, cameras, days = everything(source)
    if place.tested is None:
        trained, tested = cameras == place.camera, cameras != place.camera
    else:
        trained, tested = days != place.tested, days == place.tested
    calibrating = _days(days[trained], place.share)
    held = trained & np.isin(days, calibrating)
    rows = {"train": trained & ~held, "validation": held, "test": tested}
    parts = {name: whole.take(np.flatnonzero(own)) for name, own in rows.items()}
    return complete(Path(source).name, parts, None, None, 0)


def _days(days: np.ndarray, share: float) -> list[str]:
    """Whole days, by lot, with at most about that share of the frames together; the smallest, if all are larger."""
    names, counts = np.unique(days, return_counts=True)
    chosen: list[str] = []
    found, most = 0, 1.25 * share * len(days)
    for i in np.random.default_rng(0).permutation(len(names)):
        if found + counts[i] <= most:
            chosen.append(str(names[i]))
            found += int(counts[i])
    return chosen or [str(names[counts.argmin()])]


def _joined(parts: list[Samples]) -> Samples:
    ends = np.cumsum([len(part) for part in parts])
    return Samples(partial(_read, parts, ends), np.concatenate([part.targets for part in parts]))


def _read(parts: list[Samples], ends: np.ndarray, i: int) -> Any:
    k = int(np.searchsorted(ends, i, side="right"))
    return parts[k].read(i - (int(ends[k - 1]) if k else 0))
