""".npz files: arrays of pixels, or image files joined end to end."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from offramp.data.arrays import read_arrays
from offramp.data.marked import marked, of_ones
from offramp.data.samples import SPLITS, Samples, from_pixels
from offramp.errors import DataError
from offramp.inputs import Input
from offramp.inputs._decode import check_size

Arrays = Mapping[str, np.ndarray]

_JOINED = ("bytes", "offsets", "labels")
_MARKED = ("bytes", "offsets", "points_xy", "point_offsets")
_WANTED = (
    *(f"{axis}_{split}" for split in SPLITS for axis in "xy"),
    *(f"{split}_{part}" for split in SPLITS for part in _JOINED),
    *_JOINED,
    *_MARKED[2:],
    "split",
    "classes",
)


def read_npz(path: Path, kind: type[Input]) -> tuple[dict[str, Samples], list[str] | None]:
    """The splits of an ``.npz`` file and its class names. Nothing in the file can run code.

    These forms are known, for each split ``S`` of train, validation and test; a file may hold some of them only:
    ``x_S`` (pixels, ``(n, h, w)`` or ``(n, h, w, 3)`` uint8) with ``y_S``;
    ``S_bytes``, ``S_offsets``, ``S_labels`` (files joined, file i at ``offsets[i]:offsets[i + 1]``);
    ``bytes``, ``offsets``, ``labels`` and ``split``, the split's name for each sample; the same without ``split``, all
    of it one; and these two with ``points_xy`` ``(points, 2)`` and ``point_offsets`` in place of labels: points
    ``point_offsets[i]:point_offsets[i + 1]`` are marked on image i, and their number is its label. ``classes`` names
    the classes.

    Labels are integers, within the class names where there are any, or finite numbers. An image that turns out to be
    damaged is named by its split and its number there, from 0.

    Args:
        path: the file.
        kind: what the joined files hold.

    Raises:
        DataError: no such file, a damaged one, one that would need far more memory than it has bytes
            (``read_arrays``), another form, or arrays that do not fit together.
    """
    arrays, there = read_arrays(path, _WANTED)
    classes = _classes(arrays["classes"], path) if "classes" in arrays else None
    try:
        parts = _splits(arrays, path, kind, None if classes is None else len(classes))
    except KeyError as error:
        raise DataError(f"{path} lacks the array {error}") from error
    if not parts:
        raise DataError(f"{path} has no known form: it holds {', '.join(sorted(there)) or 'nothing'}")
    return parts, classes


def _splits(arrays: Arrays, path: Path, kind: type[Input], classes: int | None) -> dict[str, Samples]:
    marks = arrays.keys() >= {*_MARKED}
    if marks or arrays.keys() >= {*_JOINED}:
        if marks:
            everything = _with_points(arrays, str(path), kind)
        else:
            everything = _encoded([arrays[part] for part in _JOINED], str(path), kind, classes)
        if "split" not in arrays:
            return {"all": everything}
        split = arrays["split"]
        if split.dtype.kind != "U" or split.shape != (len(everything),):
            raise DataError(f"the splits of {path} are {split.dtype} {split.shape}: they are one name an image")
        found = {name: np.flatnonzero(split == name) for name in SPLITS}
        return {name: everything.take(rows) for name, rows in found.items() if len(rows)}
    parts = {}
    for name in SPLITS:
        where = f"the {name} split of {path}"
        if f"x_{name}" in arrays:
            parts[name] = _pixels(arrays[f"x_{name}"], arrays[f"y_{name}"], where, classes)
        elif f"{name}_bytes" in arrays:
            parts[name] = _encoded([arrays[f"{name}_{part}"] for part in _JOINED], where, kind, classes)
    return parts


def _pixels(x: np.ndarray, y: np.ndarray, where: str, classes: int | None) -> Samples:
    targets = _targets(y, where, classes)
    # two and four values a pixel: with an alpha channel
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (2, 3, 4)) or len(x) != len(y):
        raise DataError(
            f"pixels must be uint8, (n, h, w) or (n, h, w, 3), one image a label; "
            f"those of {where} are {x.dtype} {x.shape} with {len(y)} labels"
        )
    check_size(x.shape[2], x.shape[1], f"an image of {where}")
    return from_pixels(x, targets)


def _encoded(arrays: Sequence[np.ndarray], where: str, kind: type[Input], classes: int | None) -> Samples:
    joined, offsets, labels = arrays
    targets = _targets(labels, where, classes)
    if joined.dtype != np.uint8 or joined.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
        raise DataError(
            f"joined images are uint8 bytes with whole numbers as offsets; "
            f"those of {where} are {joined.dtype} {joined.shape} and {offsets.dtype} {offsets.shape}"
        )
    if len(offsets) != len(labels) + 1 or offsets[0] < 0 or offsets[-1] > len(joined):
        raise DataError(
            f"the {len(labels)} labels, {len(offsets)} offsets and {len(joined)} bytes of {where} do not fit together"
        )
    if (turns := np.flatnonzero(offsets[1:] < offsets[:-1])).size:
        raise DataError(f"the offsets of {where} do not rise: image {turns[0]} would end before it begins")
    return Samples(partial(_decode, kind, where, joined, offsets), targets)


def _with_points(arrays: Arrays, where: str, kind: type[Input]) -> Samples:
    points, offsets = arrays["points_xy"], arrays["point_offsets"]
    if points.dtype.kind not in "fiu" or points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise DataError(f"points are pairs of finite numbers; those of {where} are {points.dtype} {points.shape}")
    if (
        offsets.dtype.kind not in "iu"
        or offsets.ndim != 1
        or not len(offsets)
        or len(offsets) != len(arrays["offsets"])
    ):
        raise DataError(
            f"the point_offsets of {where} are {offsets.dtype} {offsets.shape}: they are one more than images"
        )
    if offsets[0] < 0 or offsets[-1] > len(points) or (offsets[1:] < offsets[:-1]).any():
        raise DataError(f"the point_offsets of {where} do not rise from 0 to its {len(points)} points")
    bounds = offsets.astype(np.int64)
    images = _encoded([arrays["bytes"], arrays["offsets"], np.diff(bounds)], where, kind, None)
    return marked(images.read, [of_ones(points[a:b]) for a, b in pairwise(bounds)], kind)


def _decode(kind: type[Input], where: str, joined: np.ndarray, offsets: np.ndarray, i: int) -> Any:
    what = f"{kind.noun.removesuffix('s')} {i} of {where}"
    return kind.read(io.BytesIO(joined[offsets[i] : offsets[i + 1]].tobytes()), what)


def _targets(labels: np.ndarray, where: str, classes: int | None) -> np.ndarray:
    """Labels as int64 or float32, checked; ``classes`` is how many have a name, None where none has."""
    if labels.ndim != 1 or labels.dtype.kind not in ("iu" if classes is not None else "iuf"):
        kind = "one number an image" if classes is None else "one class number an image, as the classes have names"
        raise DataError(f"the labels of {where} are {labels.dtype} {labels.shape}: they are {kind}")
    if labels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            numbers = labels.astype(np.float32)
        if (odd := np.flatnonzero(~np.isfinite(numbers))).size:
            raise DataError(f"label {odd[0]} of {where} is {labels[odd[0]]}, no finite number")
        return numbers
    low, high = (np.iinfo(np.int64).min, np.iinfo(np.int64).max) if classes is None else (0, classes - 1)
    if (odd := np.flatnonzero((labels < low) | (labels > high))).size:
        raise DataError(f"label {odd[0]} of {where} is {labels[odd[0]]}; the labels go from {low} to {high}")
    return labels.astype(np.int64)


def _classes(names: np.ndarray, path: Path) -> list[str]:
    if names.ndim != 1 or not len(names):
        raise DataError(f"the classes of {path} are {names.dtype} {names.shape}: they are one name a class")
    return [str(name) for name in names]
