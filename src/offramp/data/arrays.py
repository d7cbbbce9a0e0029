"""The arrays of an ``.npz`` file: those that are asked for, and none larger than the file can hold."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np

from offramp.errors import DataError
from offramp.inputs._decode import reason

MAX_RATIO = 100
"""How many times its compressed size an array may have. Deflate can shrink a thousandfold; images do not shrink so."""
SMALL = 2**28
"""An array of so many bytes is read at any ratio: labels, sorted, shrink to almost nothing."""
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(path: Path, wanted: Iterable[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Some arrays of an ``.npz`` file, and the names of all that it holds.

    The header of an array is compared with the size of its part of the file before memory is asked for, and nothing in
    the file can run code. What is not wanted is not read.

    Args:
        path: the file.
        wanted: names; those that are not there are left out.

    Raises:
        DataError: no such file, a damaged one, objects in an array that is wanted, or an array that is larger than
            ``SMALL`` and more than ``MAX_RATIO`` times what it takes in the file.
    """
    try:
        with warnings.catch_warnings(action="ignore"), ZipFile(path) as file:
            there = {m.filename.removesuffix(".npy"): m for m in file.infolist() if m.filename.endswith(".npy")}
            whole = path.stat().st_size
            return {name: _array(file, there[name], whole) for name in wanted if name in there}, list(there)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except Exception as error:  # zip, decompressor and header raise whatever damage makes them raise
        raise DataError(f"{path} is no .npz file that can be read: {reason(error)}") from error


def _array(file: ZipFile, member: ZipInfo, whole: int) -> np.ndarray:
    name, packed = member.filename, min(member.compress_size, whole)
    if member.file_size > max(SMALL, MAX_RATIO * packed):
        raise ValueError(
            f"{name} would grow from {packed / 1e6:.1f} to {member.file_size / 1e6:.0f} MB, more than images do "
            "(numpy.savez stores arrays uncompressed, and those are read at any size)"
        )
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{name} has a header of version {version}")
        shape, _, dtype = _HEADERS[version](stream)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, which are not opened (allow_pickle=False)")
        size = stream.tell() + math.prod(shape) * dtype.itemsize
        if min(*shape, dtype.itemsize - 1, 0) < 0 or size != member.file_size:
            raise ValueError(f"{name} says that it is {dtype} {shape}, which its {member.file_size} bytes are not")
    with file.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # the end, where the checksum is compared
        return array
