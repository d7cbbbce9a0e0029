"""What parts cost."""

import timm
import torch
from helpers import tiny_model

import offramp
from offramp.cost import in_turn


def test_macs_of_a_known_model():
    model = offramp.attach(timm.create_model("vit_tiny_patch16_224"), [offramp.Exit(6)])
    costs = offramp.profile(model, repeats=0)
    n, d = 197, 192
    assert costs.macs.steps == ((12 * n * d * d + 2 * n * n * d),) * 12
    assert costs.macs.stem == 196 * 768 * d
    assert costs.macs.heads == (1000 * d,)
    assert costs.macs.final == 1000 * d
    assert costs.seconds is None


def test_seconds_are_there_for_every_part():
    costs = offramp.profile(tiny_model(), batch_size=3, repeats=2)
    assert len(costs.seconds.steps) == 4
    assert len(costs.seconds.heads) == 3
    assert min(costs.seconds.stem, *costs.seconds.steps, *costs.seconds.heads, costs.seconds.final) > 0
    assert costs.batch_size == 3
    assert costs.conditions["threads"] == torch.get_num_threads()


def test_in_turn_alternates_and_drops_the_first_round():
    order = []
    calls = {name: [lambda name=name, i=i: order.append((name, i)) for i in range(2)] for name in "ab"}
    seconds = in_turn(calls, rounds=3)
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)] * 4
    assert [len(s) for s in seconds.values()] == [3, 3]
