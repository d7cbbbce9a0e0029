"""A random order of the samples of a table that does not depend on the order in which they came."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from offramp.types import ExitTable

_BLOCK = 1024


def random_order(table: ExitTable, seed: int) -> tuple[Tensor, str]:
    """A random order of the samples, and a digest of the table; both are the same whatever order the rows came in.

    The generator starts from the seed and from what the rows hold. A seed alone would give every table of one size the
    same order, and a table that comes class by class would have its classes at the same places each time.

    Args:
        table: the exit table.
        seed: any whole number.

    Returns:
        indices ``(samples,)``, and 16 hexadecimal digits.
    """
    keys = _row_keys(table)
    rising = sorted(range(len(keys)), key=keys.__getitem__)
    digest = hashlib.sha256(b"".join(keys[row] for row in rising)).hexdigest()
    start = hashlib.sha256(f"{seed} {digest}".encode()).digest()
    shuffled = np.random.default_rng(int.from_bytes(start)).permutation(len(keys))
    return torch.tensor(rising)[torch.from_numpy(shuffled)], digest[:16]


def _row_keys(table: ExitTable) -> list[bytes]:
    """A digest of what each sample has in a table: its outputs at every exit, and its target."""
    keys = []
    for first in range(0, len(table), _BLOCK):
        block = table.take(slice(first, first + _BLOCK)).compact()  # so that a compact table has the same order
        targets = block.targets
        own = (block.outputs.transpose(0, 1), targets)
        parts = [t.reshape(len(targets), -1).contiguous().view(torch.uint8).numpy() for t in own]
        keys += [hashlib.sha256(row.tobytes()).digest() for row in np.hstack(parts)]
    return keys
