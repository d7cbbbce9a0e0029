"""Samples with points marked on them, and the layouts of crowd counting's data sets: ShanghaiTech and DISCO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp.data.samples import Samples
from offramp.errors import DataError
from offramp.inputs import Input
from offramp.inputs._decode import MAX_PIXELS, reason

_POINTS_FILE = 2**20
"""Bytes of the largest file of points that is read: those of ShanghaiTech have a hundredth of that."""
_BLOCK = 4
"""Pixels of DISCO's maps that become one point, in each direction."""


class Marks(NamedTuple):
    """What is marked on a sample.

    Args:
        points: ``(n, 2)``: x and y in pixels.
        weights: how many things each is, ``(n,)``.
    """

    points: np.ndarray
    weights: np.ndarray


def of_ones(points: np.ndarray) -> Marks:
    """Points that are one thing each."""
    return Marks(points, np.ones(len(points)))


def marked(
    read: Callable[[int], Any], marks: Sequence[Marks], kind: type[Input], names: Sequence[str] | None = None
) -> Samples:
    """Samples with what is marked on them; the target of each is how many that are.

    Args:
        read: the sample at an index; something that can be sent to another process.
        marks: of each sample.
        kind: what a sample is: an input that has no use for points gets the sample alone.
        names: of the samples.
    """
    targets = np.array([mark.weights.sum() for mark in marks], dtype=np.float32)
    return Samples(partial(_read, read, marks, kind), targets, names)


def _read(read: Callable[[int], Any], marks: Sequence[Marks], kind: type[Input], i: int) -> Any:
    return kind.marked(read(i), *marks[i])


def is_shanghaitech(path: Path) -> bool:
    """Whether a folder is a part of ShanghaiTech: ``train_data`` or ``test_data`` with ``images``."""
    return any((path / f"{split}_data" / "images").is_dir() for split in ("train", "test"))


def read_shanghaitech(path: Path, kind: type[Input]) -> dict[str, Samples]:
    """A part of ShanghaiTech (MCNN, CVPR 2016): ``train_data/images/IMG_1.jpg`` and so on.

    The heads of an image stand in ``ground_truth`` (or ``ground-truth``) beside, ``GT_IMG_1.mat``. It has no validation
    split.

    Raises:
        DataError: an image without its heads, or a file of heads that is damaged or of another form.
    """
    found = {}
    for split in ("train", "test"):
        folder = path / f"{split}_data"
        if not (folder / "images").is_dir():
            continue
        files = sorted((folder / "images").glob("*.jpg"), key=lambda f: (len(f.name), f.name))
        beside = folder / ("ground-truth" if (folder / "ground-truth").is_dir() else "ground_truth")
        marks = [of_ones(_heads(beside / f"GT_{file.stem}.mat")) for file in files]
        found[split] = _files(files, marks, kind)
    return found


def is_disco(path: Path) -> bool:
    """Whether a folder has DISCO's ``imgs`` and ``density``."""
    return (path / "imgs").is_dir() and (path / "density").is_dir()


def read_disco(path: Path, kind: type[Input]) -> dict[str, Samples]:
    """DISCO (2005.07097): ``imgs/ID.jpg`` and a map of its heads, ``density/train/ID.mat`` (or ``val``, ``test``).

    A map's blocks of 4 × 4 pixels become points that count as much as lies in them: the number stays what it was, and
    so does the place to within a few pixels.

    Raises:
        DataError: a map without its image, or one that is damaged or of another form.
    """
    found = {}
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        maps = sorted((path / "density" / name).glob("*.mat"))
        if maps:
            files = [path / "imgs" / f"{file.stem}.jpg" for file in maps]
            if missing := [file for file in files if not file.exists()]:
                raise DataError(f"there is no image {missing[0]} for its map")
            found[split] = _files(files, [_blocks(file) for file in maps], kind)
    return found


def _files(files: Sequence[Path], marks: Sequence[Marks], kind: type[Input]) -> Samples:
    names = [str(file) for file in files]
    return marked(partial(_read_at, kind.read, names), marks, kind, names)


def _read_at(read: Callable[[str], Any], names: list[str], i: int) -> Any:
    return read(names[i])


def _heads(file: Path) -> np.ndarray:
    """The points in one of ShanghaiTech's files, ``(n, 2)``: a struct in a cell in a struct."""
    info = _mat(file, "image_info", _POINTS_FILE)
    try:
        points = np.asarray(info[0, 0]["location"][0, 0], dtype=np.float64)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} has no heads where ShanghaiTech's files have them: {reason(error)}") from error
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise DataError(f"the heads in {file} are no pairs of finite numbers")
    return points


def _blocks(file: Path) -> Marks:
    """The map in one of DISCO's files, as points that count."""
    values = _mat(file, "map")
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise DataError(f"'map' in {file} is no map of finite numbers: it is {values.dtype} {values.shape}")
    height, width = (-(-side // _BLOCK) * _BLOCK for side in values.shape)
    whole = np.zeros((height, width))
    whole[: values.shape[0], : values.shape[1]] = values
    sums = whole.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).sum((1, 3))
    rows, columns = np.nonzero(sums)
    centre = (_BLOCK - 1) / 2
    return Marks(np.stack([columns, rows], 1) * _BLOCK + centre, sums[rows, columns])


def _mat(file: Path, name: str, largest: float = math.inf) -> Any:
    """A variable of one of MATLAB's files of at most so many bytes. Raises ``DataError``."""
    from scipy.io import loadmat, whosmat

    if not file.exists():
        raise DataError(f"there is no file {file}")
    if (size := file.stat().st_size) > largest:
        raise DataError(f"{file} has {size} bytes; files of points of up to {largest} are read")
    try:
        shapes = {found: shape for found, shape, _ in whosmat(file)}
        if name in shapes and np.prod(shapes[name], dtype=np.float64) > MAX_PIXELS:
            raise DataError(f"{name} in {file} has the shape {shapes[name]}, more than any image that is read")
        values = loadmat(file, variable_names=[name])[name]
    except KeyError:
        raise DataError(f"{file} holds no {name!r}") from None
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the reader raise whatever it stumbles over
        raise DataError(f"{file} could not be read as MATLAB's: {reason(error)}") from error
    return values
