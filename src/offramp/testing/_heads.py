"""What every head keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from offramp.heads import build_head
from offramp.tasks import Task, get_task
from offramp.types import Exit, Tap

TAPS = (
    Tap(after=2, dim=48, grid=(4, 4), prefix=1, summary=1),
    Tap(after=2, dim=48, grid=(4, 4), prefix=2, summary=2),
    Tap(after=2, dim=48, grid=(3, 5), prefix=5, summary=1),
    Tap(after=4, dim=64, grid=(8, 8)),
    Tap(after=6, dim=32, grid=(2, 2)),
)
"""Of a ViT, a distilled DeiT, a ViT with registers that is not square, a CNN, and a last stage of few tokens."""


def check_head(
    head: str | Callable[..., nn.Module],
    options: Mapping[str, Any] | None = None,
    task: str | Task = "classification",
    taps: tuple[Tap, ...] = TAPS,
) -> None:
    """Check that a head answers at every kind of tap, for any number of samples, and that all of it learns.

    Samples do not see each other, side tokens are taken, a copy gives the same, and work is counted.

    Args:
        head: a name, or what builds one.
        options: its keyword arguments.
        task: what it answers.
        taps: where it is tried.

    Raises:
        AssertionError: the sentence says what is broken, and at which tap.
    """
    meaning = get_task(task)
    for tap in taps:
        for outputs in (1, 7):
            torch.manual_seed(0)
            _check(build_head(Exit(tap.after, head, options or {}), tap, outputs), tap, meaning.shape(tap, outputs))


def _check(head: nn.Module, tap: Tap, shape: tuple[int, ...]) -> None:
    output = head(torch.randn(3, tap.tokens, tap.dim))
    assert output.shape == (3, *shape), f"at {tap} it answers {tuple(output.shape)}, not {(3, *shape)}"
    assert torch.isfinite(output).all(), f"at {tap} it answers what is not finite"
    output.square().sum().backward()
    for name, p in head.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, f"at {tap} the parameter {name} does not learn"  # noqa: PT018
    head.eval()
    with torch.no_grad():
        for n in (0, 1, 3):
            tokens, side = torch.randn(n, tap.tokens, tap.dim), torch.randn(n, 2, tap.dim)
            for given in (None, side):
                found = head(tokens, side=given).shape
                assert found == (n, *shape), f"at {tap} it answers {tuple(found)} for {n} samples"
        if shape != (1,):
            assert not torch.allclose(head(tokens), head(tokens, side=side)), f"at {tap} side tokens do not matter"
        together, alone = head(tokens), torch.cat([head(sample[None]) for sample in tokens])
        assert torch.allclose(together, alone, atol=1e-5), f"at {tap} samples see each other"
        assert torch.equal(copy.deepcopy(head)(tokens), together), f"at {tap} a copy answers otherwise"
        with FlopCounterMode(display=False) as counter:
            head(tokens[:1])
    assert counter.get_total_flops() >= 2 * tap.dim, f"at {tap} its work is not counted"
