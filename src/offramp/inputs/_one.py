"""What inputs have in common whose samples become one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from offramp._batches import Inputs
from offramp.errors import DataError, UsageError


class OneTensor:
    """Abstract: an input whose prepared sample is one tensor ``(C, H, W)``; a frozen dataclass derives from it.

    What is left to write: ``noun``, ``suffixes``, the field ``input_size``, ``read``, ``for_backbone`` and
    ``transform``. A file that prepares samples itself needs ``raw``, ``raw_shapes`` and ``graph`` as well.
    """

    noun: ClassVar[str]
    crops: tuple[int, int] = (1, 1)
    input_size: tuple[int, int, int]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """One part, called as samples are."""
        return {self.noun: self.input_size}

    @property
    def raw_shapes(self) -> Mapping[str, tuple[int | str, ...]]:
        """Raises ``UsageError``: samples cannot be prepared in a file."""
        raise self._cannot()

    @staticmethod
    def marked(sample: Any, points: np.ndarray, weights: np.ndarray) -> Any:
        """A sample whose source knows points ``(n, 2)`` that count ``(n,)``: itself, unless an input uses them."""
        return sample

    def pretrained_cfg(self) -> dict[str, Any]:
        """Its size."""
        return {"input_size": self.input_size}

    def raw(self, sample: Any) -> Inputs:
        """Raises ``UsageError``, as above."""
        raise self._cannot()

    def graph(self) -> tuple[nn.Module, Inputs]:
        """Raises ``UsageError``, as above."""
        raise self._cannot()

    def example(self, n: int, generator: torch.Generator | None = None, raw: bool = False) -> Inputs:
        """Normal noise ``(n, C, H, W)``."""
        if raw:
            raise self._cannot()
        return torch.randn(n, *self.input_size, generator=generator)

    def check(self, x: Inputs, raw: bool = False) -> None:
        """Raise ``DataError`` unless it is ``(B, C, H, W)``."""
        if raw:
            raise self._cannot()
        if not isinstance(x, Tensor):
            raise DataError(f"{self.noun} are one tensor, and this is a {type(x).__name__}")
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_size:
            expected = f"(batch, {', '.join(map(str, self.input_size))})"
            raise DataError(f"the model takes {self.noun} of shape {expected}, these are {tuple(x.shape)}")

    def converted(self, x: Inputs, other: Any) -> Inputs:
        """The batch itself, for an equal input. Raises ``UsageError`` for another."""
        if other != self:
            raise UsageError(f"{self.about()} cannot be made what {other.about()} are")
        return x

    def about(self) -> str:
        """Noun and size."""
        return f"{self.noun} {list(self.input_size)} (channels, height, width)"

    def _cannot(self) -> UsageError:
        return UsageError(f"{self.noun} cannot be prepared inside an exported file: leave preprocess out")
