"""WebDataset's shards: tar files in which the files of a sample share a name and follow each other."""

from __future__ import annotations

import glob
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp._progress import track
from offramp.data.samples import Samples
from offramp.errors import DataError
from offramp.inputs import Input

_SPLITS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_TARGETS = ("cls", "json", "txt")


class _Place(NamedTuple):
    """Where a file lies in its shard."""

    shard: str
    name: str
    offset: int
    size: int


def read_shards(pattern: str, kind: type[Input]) -> tuple[dict[str, Samples], None]:
    """The splits of shards, whose file names begin with ``train``, ``val`` or ``test``; all are one where they do not.

    A sample's files are ``NAME.jpg`` (any suffix of the input) and ``NAME.cls``, a number, or ``NAME.json`` with a
    ``label``. Shards are indexed once, from their headers, and then read at random: order and resume are those of any
    folder, and no buffer shuffles.

    Args:
        pattern: a ``.tar`` file, or a pattern such as ``shards/train-*.tar``.
        kind: what a sample is.

    Raises:
        DataError: no shard, one that is damaged or compressed, a sample without a target.
    """
    files = sorted(glob.glob(pattern))
    if not files:
        raise DataError(f"nothing matches {pattern}")
    groups: dict[str, list[str]] = {}
    for file in files:
        split = next((ours for ours, names in _SPLITS.items() if Path(file).name.startswith(names)), "all")
        groups.setdefault(split, []).append(file)
    if "all" in groups and len(groups) > 1:
        raise DataError(f"of the shards {pattern} some name their split and {groups['all'][0]} does not")
    return {split: _samples(group, kind) for split, group in groups.items()}, None


def _samples(files: list[str], kind: type[Input]) -> Samples:
    places: list[_Place] = []
    targets: list[float] = []
    for file in track(files, "indexing shards", len(files)):
        for name, members in _index(file):
            inputs = [m for end, m in members.items() if f".{end.rpartition('.')[2]}" in kind.suffixes]
            if len(inputs) != 1:
                raise DataError(f"{name} in {file} has {len(inputs)} files that are {kind.noun}, not one")
            places.append(inputs[0])
            targets.append(_target(name, members))
    if not places:
        raise DataError(f"{files[0]} holds no samples")
    values = np.array(targets)
    whole = values == values.astype(np.int64)
    return Samples(
        partial(_read, kind.read, places),
        values.astype(np.int64) if whole.all() else values.astype(np.float32),
        [f"{place.shard}:{place.name}" for place in places],
    )


def _index(file: str) -> Iterator[tuple[str, dict[str, _Place]]]:
    """The samples of a shard: what each is called, and its files by what stands behind the first dot."""
    found: dict[str, dict[str, _Place]] = {}
    try:
        with tarfile.open(file, "r:") as shard:
            for member in shard:
                folder, slash, base = member.name.rpartition("/")
                name, dot, end = base.partition(".")
                if member.isfile() and name and dot:
                    place = _Place(file, member.name, member.offset_data, member.size)
                    found.setdefault(folder + slash + name, {})[end.lower()] = place
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{file} could not be read as a shard (a tar file, not compressed): {error}") from error
    yield from found.items()


def _target(name: str, members: dict[str, _Place]) -> float:
    for end in _TARGETS:
        if end not in members:
            continue
        content = _bytes(members[end]).decode(errors="replace").strip()
        try:
            if end != "json":
                return float(content)
            values = json.loads(content)
            return float(values["label"] if isinstance(values, dict) else values)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"the target of {name} in {members[end].shard} is no number: {error}") from error
    raise DataError(f"{name} has no target: a shard keeps it as {name}.cls or, under 'label', as {name}.json")


def _read(read: Callable[..., Any], places: list[_Place], i: int) -> Any:
    place = places[i]
    return read(io.BytesIO(_bytes(place)), f"{place.name} in {place.shard}")


def _bytes(place: _Place) -> bytes:
    with Path(place.shard).open("rb") as file:
        file.seek(place.offset)
        return file.read(place.size)
