"""Data of the user's own: data sets and loaders of torch, and of Hugging Face."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, default_collate

from offramp._progress import track
from offramp.data.huggingface import is_huggingface, samples_of
from offramp.data.prepared import collate
from offramp.data.samples import Samples, Splits, fingerprint
from offramp.errors import DataError, UsageError

Data = Samples | Dataset[Any] | DataLoader[Any]
"""What samples can be given as."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Batches of prepared inputs and targets in an order of their own, which nobody can repeat.

    Args:
        batches: a loader that knows how many batches an epoch has.
    """

    batches: DataLoader[Any]

    def __len__(self) -> int:
        return len(self.batches)


def as_samples(data: Data | Stream) -> Samples:
    """Samples from what a user has.

    A map-style data set of torch gives ``(input, target)`` for each index: a sample (an image of Pillow's), which the
    model's input will prepare, or what it is once prepared, a tensor or a tuple of tensors. Its targets are read once,
    all of them. A data set of Hugging Face has a column of images and one of labels. Of a loader its data set is taken,
    where it has no sampler and no collation of its own: order, batches and workers are those of whoever reads.

    Args:
        data: samples, a data set, or a loader.

    Raises:
        UsageError: something else; a stream, which has no samples with numbers.
        DataError: a data set without a sample, or whose targets are no numbers.
    """
    found = as_samples_or_stream(data)
    if isinstance(found, Stream):
        raise UsageError(
            "a stream (an iterable data set, or a loader with a sampler or collation of its own) has no samples that "
            "can be read by number: give a map-style data set"
        )
    return found


def as_splits(data: Data, split: str = "test") -> Splits:
    """The same as one split of a data set that has no other. Raises as ``as_samples``."""
    samples = as_samples(data)
    record = {"source": type(data).__name__, "fingerprints": {split: fingerprint(samples)}}
    return Splits({split: samples}, None, record)


def as_samples_or_stream(data: Data | Stream) -> Samples | Stream:
    """The same, where a stream will do. Raises ``UsageError`` for one that does not know its length."""
    if isinstance(data, Samples | Stream):
        return data
    if isinstance(data, str | Path):
        raise UsageError(f"{str(data)!r} is the name of a source: offramp.data.open_splits opens it")
    if is_huggingface(data):
        return samples_of(data)
    if isinstance(data, DataLoader):
        if _is_plain(data):
            return as_samples(data.dataset)
        try:
            len(data)
        except TypeError:
            raise UsageError("a loader that does not know how many batches it has cannot be trained on") from None
        return Stream(data)
    if isinstance(data, IterableDataset):
        raise UsageError("an iterable data set comes in a DataLoader, which says how large its batches are")
    if not hasattr(data, "__getitem__") or not isinstance(data, Sized):
        raise UsageError(f"a {type(data).__name__} is neither samples, a data set nor a loader")
    return _read(data)


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Whether a loader is a map-style data set in batches, in its own order or shuffled."""
    return (
        not isinstance(loader.dataset, IterableDataset)
        and type(loader.sampler) in (SequentialSampler, RandomSampler)
        and loader.collate_fn in (default_collate, collate)
        and loader.batch_size is not None
    )


def _read(dataset: Any) -> Samples:
    size = len(dataset)
    if size == 0:
        raise DataError("the data set holds no samples")
    first, _ = _pair(dataset, 0)
    targets = [_pair(dataset, i)[1] for i in track(range(size), "reading targets", size)]
    try:
        values = np.stack([np.asarray(target) for target in targets])
    except (TypeError, ValueError) as error:
        raise DataError(f"the targets of the data set are not all of one kind: {error}") from error
    if values.dtype.kind not in "iuf":
        raise DataError(f"the targets of the data set are {values.dtype}: they are numbers")
    values = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
    return Samples(partial(_input, dataset), values, prepared=_is_prepared(first))


def _input(dataset: Any, i: int) -> Any:
    return _pair(dataset, i)[0]


def _pair(dataset: Any, i: int) -> tuple[Any, Any]:
    item = dataset[i]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UsageError(f"sample {i} of the data set is a {type(item).__name__}: it is an input and its target")
    return item[0], item[1]


def _is_prepared(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, tuple) and bool(value) and all(isinstance(part, Tensor) for part in value)
    )
