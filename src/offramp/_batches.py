"""Batches: a tensor, or a tuple of tensors where a sample has several parts; the sample is the first dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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


def each(function: Callable[[Tensor], Tensor], x: Any) -> Any:
    """A batch, or a state of tuples within tuples, of what a function makes of each of its tensors."""
    return tuple(each(function, part) for part in x) if isinstance(x, tuple) else function(x)


def count(x: Any) -> int:
    """How many samples there are."""
    return len(flat(x)[0])


def take(x: Any, rows: Tensor) -> Any:
    """Some of the samples of a batch or a state, by index ``(n,)``, in the order of ``rows``."""
    return each(lambda part: part.index_select(0, rows), x)


def single(x: Any, i: int) -> Any:
    """Sample ``i``, as a batch of one that shares no memory with the others."""
    return each(lambda part: part[i : i + 1].clone(), x)


def cat(batches: Sequence[Any]) -> Any:
    """Several batches or states, one after the other."""
    if isinstance(batches[0], tuple):
        return tuple(map(cat, zip(*batches, strict=True)))
    return torch.cat(list(batches))


def flat(x: Any) -> tuple[Tensor, ...]:
    """The tensors of a state, of tuples within tuples, in a row."""
    return tuple(tensor for part in x for tensor in flat(part)) if isinstance(x, tuple) else (x,)


def to(x: Inputs, like: Tensor | torch.device) -> Inputs:
    """A batch on another device; and of a tensor's type, where ``like`` is one."""
    return each(lambda part: part.to(like), x)
