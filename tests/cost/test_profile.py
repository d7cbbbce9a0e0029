"""What parts cost."""

from functools import partial

import pytest
import timm
import torch
from helpers import tiny_model
from torch.nn import functional

import offramp
from offramp.cost import in_turn
from offramp.cost.macs import count_macs


def test_macs_of_a_known_model():
    model = offramp.attach(timm.create_model("vit_tiny_patch16_224"), [offramp.Exit(6)])
    costs = offramp.profile(model, repeats=0)
    n, d = 197, 192
    assert costs.macs.steps == ((12 * n * d * d + 2 * n * n * d),) * 12
    assert costs.macs.stem == 196 * 768 * d
    assert costs.macs.heads == (1000 * d,)
    assert costs.macs.final == 1000 * d
    assert costs.seconds is None


def test_every_part_gets_its_own_seconds(monkeypatch):
    model, now, batches = tiny_model(), [0.0], set()

    def takes(module, seconds):
        def passes(_, inputs, __):
            now[0] += seconds
            batches.add(len(inputs[0]))

        module.register_forward_hook(passes)

    inner = model.backbone.model
    for module, seconds in (
        (inner.patch_embed, 0.5),
        *((block, 10.0 + k) for k, block in enumerate(inner.blocks)),
        *((head, 1.0 + k) for k, head in enumerate(model.heads)),
        (inner.head, 0.25),
    ):
        takes(module, seconds)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    costs = offramp.profile(model, batch_size=3, repeats=2)
    for seconds in (costs.seconds, costs.p95):
        assert (seconds.stem, seconds.final) == (0.5, 0.25)
        assert seconds.steps == (10.0, 11.0, 12.0, 13.0)
        assert seconds.heads == (1.0, 2.0, 3.0)
    assert batches == {1, 3}, "one image for the MACs"
    assert costs.batch_size == 3
    assert costs.conditions["threads"] == torch.get_num_threads()


def test_in_turn_alternates_and_drops_the_first_round():
    order = []
    calls = {name: [lambda name=name, i=i: order.append((name, i)) for i in range(2)] for name in "ab"}
    seconds = in_turn(calls, rounds=3)
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)] * 4
    assert [len(s) for s in seconds.values()] == [3, 3]


def test_a_turn_of_several_pieces_begins_warm_and_loses_none():
    order, now = [], [0.0]

    def piece(name, i):
        order.append((name, i))
        now[0] += 1 + i

    calls = {name: [partial(piece, name, i) for i in range(5)] for name in "ab"}
    seconds = in_turn(calls, rounds=2, clock=lambda: now[0], turn=2, warm=1)
    turns = [[("a", i), *(("a", j) for j in (i, i + 1) if j < 5)] for i in (0, 2, 4)]
    expected = [piece for turn in turns for piece in (*turn, *(("b", i) for _, i in turn))]
    assert order == expected * 3
    assert seconds == {name: [[1.0, 2.0, 3.0, 4.0, 5.0]] * 2 for name in "ab"}


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_counted_whatever_computes_it(masked):
    q, k, v = (torch.randn(2, 3, 8, 4) for _ in range(3))
    mask = torch.randn(2, 1, 1, 8) if masked else None
    macs, _ = count_macs(functional.scaled_dot_product_attention, q, k, v, mask)
    assert macs == 2 * 2 * 3 * 8 * 8 * 4
