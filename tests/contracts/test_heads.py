"""Every head of the table at every kind of tap."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from offramp.heads import build_head
from offramp.registry import HEADS
from offramp.types import Exit, Tap

TAPS = {
    "class token": Tap(2, 24, (4, 4), 1, 1),
    "class and distillation": Tap(2, 24, (4, 4), 2, 2),
    "registers": Tap(2, 24, (4, 4), 5, 1),
    "no prefix": Tap(2, 24, (4, 4), 0, 0),
    "not square": Tap(2, 24, (3, 5), 1, 1),
    "one patch": Tap(2, 24, (1, 1), 1, 1),
}


@pytest.mark.parametrize("tap", TAPS.values(), ids=TAPS.keys())
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("outputs", [1, 7])
def test_head(name, tap, outputs):
    head = build_head(Exit(tap.after, name), tap, outputs)
    output = head(torch.randn(3, tap.tokens, tap.dim))
    assert output.shape == (3, outputs)
    assert torch.isfinite(output).all()
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    head.eval()
    for n in (0, 1):
        assert head(torch.randn(n, tap.tokens, tap.dim), side=None).shape == (n, outputs)
    with FlopCounterMode(display=False) as counter:
        head(torch.randn(1, tap.tokens, tap.dim))
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize("name", HEADS)
def test_samples_do_not_see_each_other(name):
    tap = TAPS["class token"]
    head = build_head(Exit(2, name), tap, 3).eval()
    tokens = torch.randn(4, tap.tokens, tap.dim)
    alone = torch.cat([head(t[None]) for t in tokens])
    assert torch.allclose(head(tokens), alone, atol=1e-6)
