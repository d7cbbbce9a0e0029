"""Compact tables: half the size, and no decision changes."""

import numpy as np
import pytest
import torch
from helpers import random_table, simple_costs
from safetensors import safe_open

import offramp
from offramp import ArtifactError, calibrate
from offramp.artifact import load_table, save_table
from offramp.types import ExitTable


def near_ties(n=4000, classes=50, scale=30.0):
    """Outputs whose largest two are a hair apart, far from zero, where float16 alone would not tell them apart."""
    g = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, n, classes, generator=g) * 5 + scale
    best = outputs.topk(2, -1).values
    outputs += (outputs == best[..., 1:]) * (best[..., :1] - best[..., 1:] - 1e-5)
    targets = torch.randint(classes, (n,), generator=g)
    return ExitTable(outputs, targets, (1, 2, 3), ("linear", "linear", "final"), "classification")


def test_every_answer_stays():
    for table in (near_ties(), near_ties(scale=-1000.0), random_table(2000)):
        small = table.compact()
        assert small.outputs.dtype == torch.float16
        for k in range(len(table.after)):
            assert torch.equal(table.of(k).argmax(1), small.of(k).argmax(1))
            best, kept = table.of(k).amax(1), small.of(k).amax(1)
            assert torch.equal(best, kept)
            distance = best[:, None] - table.of(k)
            assert ((small.of(k) - table.of(k)).abs() <= distance / 2000 + best.abs()[:, None] * 2e-7).all()
        assert small.compact() is small
    plain = near_ties().outputs.half().argmax(-1)
    assert not torch.equal(plain, near_ties().outputs.argmax(-1)), "float16 alone would change some"


def test_numbers_are_exact():
    table = ExitTable(torch.randn(2, 100, 1) * 1000, torch.rand(100), (1, 2), ("linear", "final"), "counting")
    assert torch.equal(table.compact().of(0), table.of(0))


def test_values_beyond_float16():
    table = random_table()
    table.outputs[0, 0, 0] = -1e6
    assert torch.isfinite(table.compact().of(0)).all()


@pytest.mark.parametrize(
    "goal",
    [
        {"max_drop": 0.01},
        {"target_speedup": 1.3},
        {"max_drop": 0.02, "rule": "patience"},
        {"risk": 0.1},
        {"risk": 0.1, "method": "crc"},
        {"max_drop": 0.02, "score": "margin"},
        {"max_drop": 0.02, "shared": True},
    ],
)
def test_the_policy_is_the_same_one(goal):
    table, costs = random_table(4000), simple_costs()
    one, other = calibrate(table, costs, **goal), calibrate(table.compact(), costs, **goal)
    exits = [offramp.replay(policy, table).exit for policy in (one, other)]
    assert (exits[0] != exits[1]).float().mean() < 0.001
    assert torch.equal(offramp.replay(other, table.compact()).exit, exits[1])
    for a, b in zip(getattr(one, "thresholds", ()), getattr(other, "thresholds", ()), strict=True):
        assert (a is None) == (b is None)
        assert a is None or abs(a - b) < 1e-3


def test_a_compact_table_is_written_and_read(tmp_path):
    table = near_ties(n=500)
    for name, given in {"full": table, "compact": table.compact(), "empty": table.take(torch.arange(0))}.items():
        path = tmp_path / f"{name}.safetensors"
        save_table(given, path)
        again = load_table(path)
        assert torch.equal(again.outputs, given.outputs)
        assert torch.equal(again.targets, given.targets)
        assert (again.largest is None) == (given.largest is None)
        assert given.largest is None or torch.equal(again.largest, given.largest)
        assert (again.after, again.heads, again.task) == (given.after, given.heads, given.task)
        with safe_open(path, "np") as file:  # the library finds what was written without it
            assert np.array_equal(file.get_tensor("outputs"), given.outputs.numpy())
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "compact")]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_table_keeps_what_was_in_the_file_when_it_was_read(tmp_path):
    table, path = random_table(), tmp_path / "t.safetensors"
    save_table(table, path)
    again = load_table(path)
    with path.open("r+b") as file:
        file.seek(-64, 2)
        file.write(b"\0" * 64)
    assert torch.equal(again.targets, table.targets)
    assert torch.equal(again.outputs, table.outputs)


def test_parts_that_do_not_fit(tmp_path):
    from dataclasses import replace

    small = random_table().compact()
    for odd in (small.largest[:, 1:], small.largest * float("nan")):
        save_table(replace(small, largest=odd), tmp_path / "t.safetensors")
        with pytest.raises(ArtifactError, match="holds no exit table"):
            load_table(tmp_path / "t.safetensors")


def test_tabulate_makes_it_piece_by_piece():
    from helpers import batches, tiny_model

    model, data = tiny_model(), batches(200)
    full, small = offramp.tabulate(model, data), offramp.tabulate(model, data, compact=True)
    wanted = full.compact()
    assert torch.equal(small.outputs, wanted.outputs)
    assert torch.equal(small.largest, wanted.largest)
    assert torch.equal(full.targets, torch.cat([y for _, y in data]))
    with torch.no_grad():
        expected = torch.cat([torch.stack(model(x)) for x, _ in data], 1)
    assert torch.equal(full.outputs, expected)
    assert not full.outputs.is_inference()
