"""Samples and their splits, before any of them is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import train_test_split

from offramp.errors import DataError, UsageError
from offramp.registry import unknown

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that are read when asked for, and their targets.

    Args:
        read: the sample at an index, an image of Pillow's for instance; something that can be sent to another process,
            so no lambda.
        targets: one for each sample, shape ``(samples,)``: a class index, or a number.
        names: what to call each sample, where it has a name.
        prepared: whether ``read`` gives what the model reads, a tensor or a tuple of tensors, and not what it is made
            of.
    """

    read: Callable[[int], Any]
    targets: np.ndarray
    names: Sequence[str] | None = None
    prepared: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> Samples:
        """Some of them, in the order of ``rows``."""
        names = None if self.names is None else [self.names[i] for i in rows]
        return Samples(partial(_read_row, self.read, rows), self.targets[rows], names, self.prepared)


def _read_row(read: Callable[[int], Any], rows: np.ndarray, i: int) -> Any:
    return read(int(rows[i]))


def from_pixels(pixels: np.ndarray, targets: np.ndarray) -> Samples:
    """Samples of an array of pixels, ``(n, h, w)`` or ``(n, h, w, 3)`` uint8."""
    return Samples(partial(_read_pixels, pixels), targets)


def _read_pixels(pixels: np.ndarray, i: int) -> Image.Image:
    return Image.fromarray(pixels[i])


@dataclass(frozen=True, eq=False)
class Splits:
    """The samples of a source by split, and the record of how they were cut.

    Thresholds are chosen on validation data; test data is read once, for the number that is reported.

    Args:
        parts: ``train``, ``validation`` and ``test``, or those of them that the source has.
        classes: the name of each class, where there are classes and names.
        record: the source, how it was cut, and the size and the fingerprint of each split.
    """

    parts: Mapping[str, Samples]
    classes: tuple[str, ...] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> Samples:
        """To train on. Raises ``DataError`` where the source has none."""
        return self.of("train")

    @property
    def validation(self) -> Samples:
        """To choose thresholds on. Raises ``DataError`` where the source has none."""
        return self.of("validation")

    @property
    def test(self) -> Samples:
        """To report on. Raises ``DataError`` where the source has none."""
        return self.of("test")

    def of(self, split: str) -> Samples:
        """The samples of a split. Raises ``UsageError`` for another name, ``DataError`` where the source has none."""
        if split not in SPLITS:
            raise UsageError(unknown("split", split, SPLITS))
        if split not in self.parts:
            raise DataError(
                f"{self.record.get('source', 'this data')} has no {split} split, only {' and '.join(self.parts)}"
            )
        return self.parts[split]


def split_off(samples: Samples, size: int | float, seed: int, what: str) -> tuple[Samples, Samples]:
    """Cut ``size`` samples (or that share of them) off, by seed, every class in proportion.

    Args:
        samples: what to cut from.
        size: a number of samples, or a share below 1.
        seed: the same seed cuts the same samples.
        what: the name of what is cut, for the message.

    Returns:
        what is left, and what was cut off.

    Raises:
        DataError: too few samples for it.
    """
    rows = np.arange(len(samples))
    classes = samples.targets if np.issubdtype(samples.targets.dtype, np.integer) else None
    try:
        left, gone = train_test_split(rows, test_size=size, random_state=seed, shuffle=True, stratify=classes)
    except ValueError as error:
        raise DataError(f"no {what} split of {size} can be cut from {len(samples)} samples: {error}") from error
    return samples.take(np.sort(left)), samples.take(np.sort(gone))


def complete(
    source: str, parts: Mapping[str, Samples], classes: Sequence[str] | None, size: int | float | None, seed: int
) -> Splits:
    """Splits from what a source has, and the record of them.

    A missing test or validation split is cut from the training samples by seed. A source without any of these is taken
    as it is: a test split alone can be evaluated, not trained on.

    Args:
        source: the name of the source, for the record.
        parts: ``all``, or those of ``train``, ``validation`` and ``test`` that the source has.
        classes: the name of each class.
        size: how much to cut for validation (and for test where there is none): a number of samples or a share;
            a tenth for None, a fifth where the source has no test split either.
        seed: by which to cut.

    Raises:
        DataError: a split without samples, or too few to cut from.
    """
    gone: list[str] = []
    share = size if size is not None else (0.1 if "train" in parts else 0.2)
    found = {"train" if name == "all" else name: samples for name, samples in parts.items()}
    if "train" in found:
        if "test" not in found:
            found["train"], found["test"] = split_off(found["train"], share, seed, "test")
            gone.append("test")
        if "validation" not in found:
            # the same share of the whole, also after a test split was cut
            if isinstance(share, float) and gone:
                share = share / (1 - share)
            found["train"], found["validation"] = split_off(found["train"], share, seed, "validation")
            gone.append("validation")
    found = {name: found[name] for name in SPLITS if name in found}
    for name, samples in found.items():
        if len(samples) == 0:
            raise DataError(f"the {name} split of {source} holds no samples")
    record = {
        "source": source,
        "seed": seed,
        "cut": gone,
        "sizes": {name: len(samples) for name, samples in found.items()},
        "fingerprints": {name: fingerprint(samples) for name, samples in found.items()},
    }
    return Splits(found, None if classes is None else tuple(map(str, classes)), record)


def fingerprint(samples: Samples) -> str:
    """A digest of targets and of sixteen samples, which tells another order, another cut and other contents."""
    digest = hashlib.sha256(np.ascontiguousarray(samples.targets).tobytes())
    for i in np.linspace(0, len(samples) - 1, 16).astype(int):
        for part in _parts(samples.read(int(i))):
            digest.update(part)
    return digest.hexdigest()[:16]


def _parts(sample: Any) -> Iterator[bytes]:
    """What a sample holds: an image of Pillow's, an array, a tensor, plain values, or a tuple of such."""
    if isinstance(sample, Image.Image):
        yield repr((sample.size, sample.mode)).encode() + sample.tobytes()
    elif isinstance(sample, tuple | list):
        for part in sample:
            yield from _parts(part)
    elif hasattr(sample, "__array__"):
        values = np.ascontiguousarray(sample)
        yield repr((values.shape, values.dtype.str)).encode() + values.tobytes()
    else:
        yield repr(sample).encode()
