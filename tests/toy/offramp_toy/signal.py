from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from offramp import DataError
from offramp.inputs import OneTensor


@dataclass(frozen=True)
class Signal(OneTensor):
    """Numbers in a text file, as a map."""

    input_size: tuple[int, int, int]
    scale: float = 1.0

    suffixes: ClassVar[frozenset[str]] = frozenset({".sig"})
    noun: ClassVar[str] = "signals"

    @staticmethod
    def read(file, what=None):
        try:
            text = Path(file).read_text() if isinstance(file, str | Path) else file.read().decode()
            return np.array([float(word) for word in text.split()], dtype=np.float32)
        except (ValueError, OSError) as error:
            raise DataError(f"{what or file} is no signal: {error}") from error

    @classmethod
    def for_backbone(cls, model, size, **options):
        return cls(size, **options)

    def transform(self, augment=None):
        return partial(prepare, self.input_size, self.scale)


def prepare(size, scale, signal):
    if signal.size != np.prod(size):
        raise DataError(f"a signal of {signal.size} numbers for {size}")
    return torch.from_numpy(signal.reshape(size)) / scale
