"""Folders of samples: one sub-folder a class."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets.folder import find_classes, make_dataset

from offramp.data.samples import Samples
from offramp.errors import DataError
from offramp.inputs import Input

_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def read_folder(path: Path, kind: type[Input]) -> tuple[dict[str, Samples], list[str]]:
    """The splits of a folder and its class names, which are the names of the sub-folders.

    ``path/CLASS/*.jpg``, or with ``train``, ``validation`` (``val``, ``valid``) and ``test`` above the classes. Without
    ``train`` the others are splits where they are all that there is, and have classes below them.

    Args:
        path: the folder.
        kind: what the files hold.

    Raises:
        DataError: no classes, a class without a sample, or splits with different classes.
    """
    parts = {name: path / d for name, folders in _NAMES.items() for d in folders if (path / d).is_dir()}
    if "train" not in parts and not _nothing_else(path, parts.values()):
        parts = {"all": path}
    classes = None
    samples = {}
    for name, folder in parts.items():
        samples[name], found = read_classes(folder, kind)
        if classes is not None and found != classes:
            raise DataError(f"the classes of {folder} are not those of {next(iter(parts.values()))}")
        classes = found
    assert classes is not None
    return samples, classes


def read_classes(folder: Path, kind: type[Input], leave_out: Collection[str] = ()) -> tuple[Samples, list[str]]:
    """The samples of a folder with one sub-folder a class, and the classes.

    Args:
        folder: the folder.
        kind: what the files hold.
        leave_out: sub-folders that are no classes.

    Raises:
        DataError: no classes, or a class without a sample.
    """
    try:
        found = [name for name in find_classes(str(folder))[0] if name not in leave_out]
        index = {name: i for i, name in enumerate(found)}
        return _files(make_dataset(str(folder), index, extensions=tuple(kind.suffixes)), kind.read), found
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no {kind.noun}: it needs one sub-folder a class ({error})") from error


def _nothing_else(path: Path, splits: Collection[Path]) -> bool:
    """Whether a folder has no sub-folders but these, and each of them has some of its own."""
    return bool(splits) and set(_folders(path)) == set(splits) and all(map(_folders, splits))


def _folders(path: Path) -> list[Path]:
    return [inner for inner in path.iterdir() if inner.is_dir()]


def _files(files: list[tuple[str, int]], read: Callable[[str], Any]) -> Samples:
    names = [name for name, _ in files]
    return Samples(partial(_read_at, read, names), np.array([label for _, label in files], dtype=np.int64), names)


def _read_at(read: Callable[[str], Any], names: list[str], i: int) -> Any:
    return read(names[i])
