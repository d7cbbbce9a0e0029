"""The seam every kind of input fills, and how an input becomes JSON and comes back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from offramp._batches import Inputs
from offramp.errors import UsageError
from offramp.registry import INPUTS


class Input(Protocol):
    """What a model reads: a frozen dataclass of plain values, which knows neither model nor task.

    A sample is what a file holds (an image, a clip). *Prepared* it is a tensor, or a tuple of tensors where it has
    several parts, and a batch of them has the sample as first dimension. *Raw* it is the tensor that an exported file
    takes which prepares its samples itself.
    """

    suffixes: ClassVar[frozenset[str]]
    """How the names of files end that hold samples: lower case, with the dot."""
    noun: ClassVar[str]
    """What several samples are called in a sentence: ``images``."""

    @property
    def crops(self) -> tuple[int, int]:
        """Rows and columns of crops, each of which a model answers for itself, and the answers are summed.

        What a file holds is one sample where it is (1, 1), as it is for all but models that count in crops.
        """

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """For each part of a prepared sample its name, which an exported file uses for its input, and its shape."""

    @property
    def raw_shapes(self) -> Mapping[str, tuple[int | str, ...]]:
        """The same of raw samples; a size that may differ from batch to batch has a name in place of a number."""

    @staticmethod
    def read(file: str | Path | BinaryIO, what: str | None = None) -> Any:
        """The sample in a file, which is called ``what`` in the ``DataError`` for one that cannot be read."""

    @staticmethod
    def marked(sample: Any, points: Any, weights: Any) -> Any:
        """A sample on which its source knows points ``(n, 2)`` that count ``(n,)``; itself, if they are of no use."""

    @classmethod
    def for_backbone(cls, model: Any, size: tuple[int, int, int], **options: Any) -> Any:
        """The input of a timm model that reads ``size`` (channels, height, width). Raises ``UsageError``."""

    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm's ``pretrained_cfg`` says of it: ``input_size`` and what else timm asks for there."""

    def transform(self, augment: Mapping[str, Any] | None = None) -> Callable[[Any], Any]:
        """From a sample to a prepared one, without a batch dimension; for training where ``augment`` says how.

        Where training changes the target with the sample, to a ``Labelled``.
        """

    def raw(self, sample: Any) -> Inputs:
        """A raw batch of one sample."""

    def graph(self) -> tuple[nn.Module, Inputs]:
        """The transform for evaluation as a module from a tuple of raw tensors to one of prepared ones, and an example.

        Raises:
            UsageError: it cannot be part of an exported file, and the sentence says what is missing.
        """

    def example(self, n: int, generator: torch.Generator | None = None, raw: bool = False) -> Inputs:
        """A batch of ``n`` samples of noise, prepared or raw."""

    def check(self, x: Inputs, raw: bool = False) -> None:
        """Raise ``DataError`` unless a batch has the parts and shapes that a model of this input reads."""

    def converted(self, x: Inputs, other: Any) -> Inputs:
        """A prepared batch as a model of another input reads it. Raises ``UsageError`` where that cannot be."""

    def about(self) -> str:
        """One sentence for people."""


def input_to_json(value: Input) -> dict[str, Any]:
    """An input as plain values, with its name under ``name``. Raises ``UsageError`` for one that is in no table."""
    name = INPUTS.name_of(type(value))
    if name is None:
        raise UsageError(f"input {type(value).__name__} is in no table; a saved model names its input")
    return {"name": name, **json.loads(json.dumps(dataclasses.asdict(value)))}  # type: ignore[call-overload]


def input_from_json(values: Mapping[str, Any]) -> Input:
    """An input from what ``input_to_json`` gave. Raises ``UsageError`` where the values are those of none."""
    given = dict(values)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(f"an input has a name, not {name!r}")
    kind: Any = INPUTS.resolve(name)
    if foreign := given.keys() - {field.name for field in dataclasses.fields(kind)}:
        raise UsageError(f"an input of the kind {name!r} has no {min(foreign)!r}")
    try:
        found: Input = TypeAdapter(kind).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"input {name!r}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return found
