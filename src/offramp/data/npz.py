""".npz files: arrays of pixels, or image files joined end to end."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from offramp.data.samples import Samples, from_pixels
from offramp.errors import DataError

_SPLITS = ("train", "validation", "test")


def read_npz(path: Path) -> tuple[dict[str, Samples], list[str] | None]:
    """The splits of an ``.npz`` file and its class names. Nothing in the file can run code.

    Three forms are known, for each split ``S`` of train, validation and test:
    ``x_S`` (pixels, ``(n, h, w)`` or ``(n, h, w, 3)`` uint8) with ``y_S``;
    ``S_bytes``, ``S_offsets``, ``S_labels`` (image files joined, file i at ``offsets[i]:offsets[i + 1]``);
    ``bytes``, ``offsets``, ``labels`` and ``split``, the split's name for each image. ``classes`` names the classes.

    Raises:
        DataError: no such file, a damaged one, or another form.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except Exception as error:  # numpy raises whatever the zip, the header or a pickle in it makes it raise
        raise DataError(f"{path} is no .npz file that can be read: {error}") from error
    classes = [str(c) for c in arrays["classes"]] if "classes" in arrays else None
    try:
        parts = _splits(arrays)
    except KeyError as error:
        raise DataError(f"{path} lacks the array {error}") from error
    if "train" not in parts:
        raise DataError(f"{path} has no known form: it holds {', '.join(sorted(arrays)) or 'nothing'}")
    return parts, classes


def _splits(arrays: dict[str, Any]) -> dict[str, Samples]:
    if {"bytes", "offsets", "labels", "split"} <= arrays.keys():
        everything = _encoded(arrays["bytes"], arrays["offsets"], arrays["labels"])
        found = {name: np.flatnonzero(arrays["split"] == name) for name in _SPLITS}
        return {name: everything.take(rows) for name, rows in found.items() if len(rows)}
    parts = {}
    for name in _SPLITS:
        if f"x_{name}" in arrays:
            parts[name] = _pixels(arrays[f"x_{name}"], arrays[f"y_{name}"])
        elif f"{name}_bytes" in arrays:
            parts[name] = _encoded(*(arrays[f"{name}_{key}"] for key in ("bytes", "offsets", "labels")))
    return parts


def _pixels(x: np.ndarray, y: np.ndarray) -> Samples:
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or len(x) != len(y):
        raise DataError(f"pixels must be uint8, one image a label; these are {x.dtype} {x.shape} with {len(y)} labels")
    return from_pixels(x, _targets(y))


def _encoded(joined: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> Samples:
    if len(offsets) != len(labels) + 1 or (len(offsets) and offsets[-1] > len(joined)):
        raise DataError(f"{len(labels)} labels and {len(offsets)} offsets into {len(joined)} bytes do not fit together")

    return Samples(partial(_decode, joined, offsets), _targets(labels))


def _decode(joined: np.ndarray, offsets: np.ndarray, i: int) -> Image.Image:
    return Image.open(io.BytesIO(joined[offsets[i] : offsets[i + 1]].tobytes()))


def _targets(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int64 if np.issubdtype(labels.dtype, np.integer) else np.float32)
