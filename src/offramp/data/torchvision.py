"""The data sets that torchvision knows by name, downloaded on the user's machine."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
from PIL import Image
from torchvision import datasets

from offramp.data.samples import Samples
from offramp.errors import DataError, UsageError
from offramp.inputs._decode import reading
from offramp.registry import unknown

PREFIX = "torchvision/"
_SPLITS = {"train": ("train", "trainval"), "validation": ("val", "valid", "validation"), "test": ("test",)}


def read_torchvision(name: str, root: Path) -> tuple[dict[str, Samples], list[str] | None]:
    """The splits of a data set of torchvision and its class names.

    Args:
        name: as torchvision writes it, ``FashionMNIST``; it must have labels that are classes.
        root: where its files are, or will be downloaded to.

    Raises:
        UsageError: torchvision has no such data set.
        DataError: it is not there and could not be downloaded.
    """
    kind = getattr(datasets, name, None)
    if not isinstance(kind, type):
        raise UsageError(unknown("torchvision data set", name, datasets.__all__))
    parameters = inspect.signature(kind).parameters
    root.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {}
    try:
        if "train" in parameters:
            parts = {"train": _open(kind, root, train=True), "test": _open(kind, root, train=False)}
        elif "split" in parameters:
            for part, values in _SPLITS.items():
                for value in values:
                    try:
                        parts[part] = _open(kind, root, split=value)
                        break
                    except ValueError:  # torchvision's word for a split that this data set does not have
                        continue
        else:
            parts = {"all": _open(kind, root)}
    except (URLError, OSError, RuntimeError) as error:
        raise DataError(
            f"torchvision's {name} is not in {root} and could not be downloaded (is there a network?): {error}"
        ) from error
    if not parts:
        raise DataError(f"torchvision's {name} has no training, validation or test split")
    first = next(iter(parts.values()))
    all_of = f"torchvision's {name}"
    where = {part: all_of if part == "all" else f"the {part} split of {all_of}" for part in parts}
    return {part: _samples(d, where[part]) for part, d in parts.items()}, getattr(first, "classes", None)


def _open(kind: type, root: Path, **which: Any) -> Any:
    download = {"download": True} if "download" in inspect.signature(kind).parameters else {}
    return kind(str(root), **which, **download)


def _samples(dataset: Any, where: str) -> Samples:
    for field in ("targets", "labels", "_labels"):
        if hasattr(dataset, field):
            return Samples(partial(_image, where, dataset), np.asarray(getattr(dataset, field), dtype=np.int64))
    raise DataError(f"torchvision's {type(dataset).__name__} has no class labels")


def _image(where: str, dataset: Any, i: int) -> Image.Image:
    with reading(f"image {i} of {where}"):
        image = dataset[i][0]
    return image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
