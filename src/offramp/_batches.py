"""Batches: a tensor, or a tuple of tensors where a sample has several parts; the sample is the first dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Inputs = Tensor | tuple[Tensor, ...]


def parts(x: Inputs) -> tuple[Tensor, ...]:
    """The tensors of a batch, one for each part of a sample."""
    return x if isinstance(x, tuple) else (x,)


def of_parts(tensors: tuple[Tensor, ...]) -> Inputs:
    """A batch of these parts."""
    return tensors[0] if len(tensors) == 1 else tensors


def loaded(x: Tensor | Sequence[Tensor]) -> Inputs:
    """A batch from what a loader of torch gives, which makes a list of several parts."""
    return x if isinstance(x, Tensor) else tuple(x)


def each(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """A batch of what a function makes of each of its tensors."""
    return tuple(map(function, x)) if isinstance(x, tuple) else function(x)


def count(x: Inputs) -> int:
    """How many samples there are."""
    return len(parts(x)[0])


def take(x: Inputs, rows: Tensor) -> Inputs:
    """Some of the samples, by index ``(n,)``, in the order of ``rows``."""
    return each(lambda part: part.index_select(0, rows), x)


def cat(batches: Sequence[Inputs]) -> Inputs:
    """Several batches, one after the other."""
    first = batches[0]
    if isinstance(first, tuple):
        return tuple(torch.cat(column) for column in zip(*map(parts, batches), strict=True))
    return torch.cat([parts(x)[0] for x in batches])


def to(x: Inputs, like: Tensor | torch.device) -> Inputs:
    """A batch on another device; and of a tensor's type, where ``like`` is one."""
    return each(lambda part: part.to(like), x)
