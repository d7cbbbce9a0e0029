"""Features of a frozen backbone, computed once and kept on disk, and a view of the model that begins with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from offramp._batches import Inputs, parts, to
from offramp._files import read_json, write_json
from offramp._progress import progress_bar
from offramp.data import Data, Samples, as_samples_or_stream, loader
from offramp.data.samples import fingerprint
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.training._modes import check_one_path
from offramp.training.same_run import digest
from offramp.types import Tap

_RECORD = "features.json"
_FINAL = "final"


class Features:
    """What a frozen backbone computes at the exits of a model, kept in a folder; heads learn from it without it.

    ``of(samples, name)`` gives samples that are read from memory-mapped files: the tokens at each exit and behind the
    last block in fp16, bit for bit what the backbone gives, rounded, and the final exit's output in fp32. ``model`` is
    the same model for such samples: its heads are those of the model that was given, so that
    ``offramp.train(features.model, …)`` with an objective that trains heads alone trains them in place, and
    ``offramp.tabulate`` reads its exits. Augmentation would change what the backbone sees, so there is none.

    Args:
        model: with exits on one path.
        folder: for the files.

    Raises:
        UsageError: a model with several paths, or without early exits.
    """

    def __init__(self, model: EarlyExitModel, folder: str | Path) -> None:
        check_one_path(model, "a cache of features")
        if model.side is not None:
            raise UsageError("features are of the backbone, and exits of this model also read another modality")
        if len(model.heads) == 0:
            raise UsageError("features are cached for heads, and this model has no early exits")
        self.source, self.folder = model, Path(folder)
        self.blocks = tuple(sorted({int(after) for after in model.after}))
        shapes = {str(block): _shape(model.backbone.taps[block - 1]) for block in self.blocks}
        final = model.task.shape(model.tap(len(model.exits)), model.num_outputs)
        self.model: EarlyExitModel = _View(model, FeatureInput({**shapes, _FINAL: final}))
        """The model that reads features."""

    def of(self, samples: Data, name: str, batch_size: int = 64, progress: bool = False) -> Samples:
        """Features of samples, computed where they are not there yet; what was killed goes on where it stopped.

        Args:
            samples: whatever ``offramp.train`` takes, but for a stream.
            name: of their folder, such as ``train``.
            batch_size: with which the backbone runs.
            progress: whether to show a bar.

        Raises:
            UsageError: the folder holds features of other samples, blocks or weights; a stream.
            DataError: values that fp16 does not hold, or a disk that is full.
        """
        found = as_samples_or_stream(samples)
        if not isinstance(found, Samples):
            raise UsageError("a stream is taken as it comes and cannot be kept: give samples that have numbers")
        place = self.folder / name
        wanted = {
            "samples": len(found),
            "fingerprint": fingerprint(found),
            "backbone": digest(self.source.backbone.model.state_dict()),
            "blocks": list(self.blocks),
        }
        done = _rows_in(place, wanted)
        names = tuple(self.model.input.shapes)
        if done < len(found):
            _open.pop((str(place), names), None)
            with evaluating(self.source), torch.inference_mode():
                self._compute(found, place, wanted, done, batch_size, progress)
        return Samples(_Rows(str(place), names), found.targets, found.names, prepared=True)

    def _compute(
        self, samples: Samples, place: Path, wanted: Mapping[str, Any], done: int, batch_size: int, progress: bool
    ) -> None:
        files = _files(place, self.model.input.shapes, len(samples), new=done == 0)
        like = next(self.source.parameters())
        rest = samples.take(np.arange(done, len(samples)))
        with progress_bar(f"features of {place.name}", len(samples), done, progress) as bar:
            for number, (x, _) in enumerate(loader(rest, self.source.input, batch_size), start=1):
                for name, values in self._values(to(x, like)):
                    files[name][done : done + len(values)] = values.numpy()
                done += len(values)
                if number % 32 == 0 or done == len(samples):
                    for file in files.values():
                        file.flush()
                    write_json(place / _RECORD, {**wanted, "rows": done})
                bar(done)

    def _values(self, x: Inputs) -> Any:
        """By name what is kept of a batch."""
        model, seen = self.source, set()
        for k, h in model.states(x):
            block = model.after[k]
            if k == len(model.exits):
                yield _FINAL, model.final(h).float().cpu()
            if block not in seen:
                seen.add(block)
                tokens = model.backbone.tokens(h, model.tap(k)).half().cpu()
                if tokens.isinf().any():
                    raise DataError(f"what block {block} computes is beyond what fp16 holds (65,504)")
                yield str(block), tokens


@dataclass(frozen=True)
class FeatureInput:
    """What a view reads: tokens behind blocks, fp16, and the final exit's output, fp32.

    Args:
        shapes: of each, by name.
    """

    shapes: Mapping[str, tuple[int, ...]]

    noun: ClassVar[str] = "features"

    def check(self, x: Inputs, raw: bool = False) -> None:
        """Raise ``DataError`` unless a batch has these parts and shapes."""
        found = [tuple(part.shape[1:]) for part in parts(x)]
        if found != list(self.shapes.values()):
            raise DataError(f"this view of a model reads features of the shapes {list(self.shapes.values())}")

    def example(self, n: int, generator: torch.Generator | None = None, raw: bool = False) -> Inputs:
        """A batch of noise."""
        return tuple(torch.randn(n, *shape, generator=generator) for shape in self.shapes.values())

    def transform(self, augment: Mapping[str, Any] | None = None) -> Callable[[Any], Any]:
        """Features are prepared already."""
        raise UsageError("this view of a model reads features: give it those of Features.of")


class _View(EarlyExitModel):
    """A model whose states are read and not computed; it shares its heads with the one it was made of."""

    def __init__(self, model: EarlyExitModel, reads: Any) -> None:
        super().__init__(
            [_Kept(model, tuple(reads.shapes))], model.placed, model.task, reads, model.num_outputs, model.classes
        )
        self.heads = model.heads

    def read_backbone(self) -> None:
        """There is none here; the model that features are of has read it."""

    def enter(self, path: int, x: Inputs, h: Any = None) -> Any:
        self.input.check(x)
        return parts(x)


class _Kept(nn.Module):
    """In place of a backbone: every state is all that was kept of a sample."""

    def __init__(self, model: EarlyExitModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.taps = model.backbone.taps
        self.names = model.backbone.names
        self.steps = [_same for _ in self.taps]
        like = next(model.parameters())
        self.model = nn.ParameterList([torch.zeros(0, device=like.device, dtype=like.dtype)])
        self._place = {name: i for i, name in enumerate(names)}
        self._dtype = like.dtype

    @classmethod
    def accepts(cls, model: Any) -> bool:
        return False

    def stem(self, x: Tensor) -> Any:
        raise UsageError("this view of a model begins with features, not with samples")

    def tokens(self, h: Any, tap: Tap) -> Tensor:
        found: Tensor = h[self._place[str(tap.after)]].to(self._dtype)
        return found

    def final(self, h: Any) -> Tensor:
        found: Tensor = h[self._place[_FINAL]]
        return found


@dataclass(frozen=True)
class _Rows:
    """Reads one sample; it can be sent to another process.

    Args:
        folder: of the files.
        names: in the order of the parts.
    """

    folder: str
    names: tuple[str, ...]

    def __call__(self, i: int) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(np.array(file[i])) for file in _opened(self.folder, self.names))


_open: dict[tuple[str, tuple[str, ...]], list[np.ndarray]] = {}


def _opened(folder: str, names: tuple[str, ...]) -> list[np.ndarray]:
    """The files of a folder, mapped once in each process."""
    key = (folder, names)
    if key not in _open:
        _open[key] = [np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in names]
    return _open[key]


def _same(h: Any) -> Any:
    return h


def _shape(tap: Tap) -> tuple[int, int]:
    return tap.tokens, tap.dim


def _rows_in(place: Path, wanted: Mapping[str, Any]) -> int:
    """How many rows a folder has of what is wanted. Raises ``UsageError`` where it holds something else.

    A complete folder may hold more blocks than are wanted.
    """
    if not (place / _RECORD).exists():
        return 0
    kept = read_json(place / _RECORD)
    complete = kept["rows"] == wanted["samples"]
    for name, value in wanted.items():
        enough = complete and name == "blocks" and {*value} <= {*kept.get(name, ())}
        if kept.get(name) != value and not enough:
            raise UsageError(
                f"{place} holds features with another {name} ({kept.get(name)}, not {value}): choose another folder"
            )
    return int(kept["rows"])


def _files(place: Path, shapes: Mapping[str, tuple[int, ...]], rows: int, new: bool) -> dict[str, np.memmap]:
    """The files, mapped for writing. Raises ``DataError`` where the disk has no room for all of them."""
    place.mkdir(parents=True, exist_ok=True)
    found: dict[str, np.memmap] = {}
    allocate = getattr(os, "posix_fallocate", None)
    try:
        for name, shape in shapes.items():
            file = place / f"{name}.npy"
            if new:
                dtype = np.float32 if name == _FINAL else np.float16
                made = np.lib.format.open_memmap(file, "w+", dtype, (rows, *shape))
                with file.open("rb+") as handle:
                    if allocate is not None:  # or a full disk would kill the process at a write
                        allocate(handle.fileno(), 0, made.offset + made.nbytes)
                del made
            found[name] = np.lib.format.open_memmap(file, "r+")
    except OSError as error:
        raise DataError(f"{place} could not be written: {error}") from error
    return found
