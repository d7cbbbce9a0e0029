"""Folders of images: one sub-folder a class."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from offramp.data.samples import Samples
from offramp.errors import DataError

_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def read_folder(path: Path) -> tuple[dict[str, Samples], list[str]]:
    """The splits of a folder and its class names, which are the names of the sub-folders.

    ``path/CLASS/*.jpg``, or with ``train``, ``validation`` (``val``, ``valid``) and ``test`` above the classes.

    Raises:
        DataError: no classes, a class without an image, or splits with different classes.
    """
    parts = {name: path / d for name, folders in _NAMES.items() for d in folders if (path / d).is_dir()}
    if "train" not in parts:
        parts = {"all": path}
    classes = None
    samples = {}
    for name, folder in parts.items():
        try:
            found, index = find_classes(str(folder))
            files = make_dataset(str(folder), index, extensions=IMG_EXTENSIONS)
        except FileNotFoundError as error:
            raise DataError(f"{folder} holds no images: it needs one sub-folder a class ({error})") from error
        if classes is not None and found != classes:
            raise DataError(f"the classes of {folder} are not those of {next(iter(parts.values()))}")
        classes = found
        samples[name] = _files(files)
    assert classes is not None
    return samples, classes


def _files(files: list[tuple[str, int]]) -> Samples:
    names = [name for name, _ in files]
    return Samples(partial(_open_at, names), np.array([label for _, label in files], dtype=np.int64), names)


def _open_at(names: list[str], i: int) -> Image.Image:
    return open_image(names[i])


def open_image(file: str | BinaryIO) -> Image.Image:
    """The image in a file. Raises ``DataError`` for a file that is missing or no image."""
    what = file if isinstance(file, str) else "the input"
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except UnidentifiedImageError:
        raise DataError(f"{what} is no image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} could not be read as an image: {error}") from error
