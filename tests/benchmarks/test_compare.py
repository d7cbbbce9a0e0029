"""The comparison's arithmetic."""

import pytest
import torch
from benchmarks._parts import part_of
from benchmarks.compare.plan import HEADS, METHODS, all_heads, layout, runs
from benchmarks.compare.rows import area_of, heads_over_seeds, mean_and_deviation, worth
from helpers import random_table, simple_costs, tiny_model, tiny_vit

import offramp
from offramp.registry import OBJECTIVES


def test_a_part_of_the_tables_is_the_table_of_a_part():
    model = tiny_model()
    table, costs = random_table(), simple_costs()
    few, cheap = part_of(table, costs, (0, 2, 3))
    assert few.after == (1, 3, 4)
    assert torch.equal(few.outputs, table.outputs[[0, 2, 3]])
    assert cheap.to_exit((0, 1)) == tuple(costs.to_exit((0, 2))[i] for i in (0, 2, 3))
    row = worth(model, table, table, costs, (0, 2))
    assert [e["after"] for e in row["exits"]] == [1, 3, 4]
    assert [e["macs"] for e in row["exits"]] == [12.0, 32.0, 42.0]
    assert row["head_parameters"] == sum(p.numel() for k in (0, 2) for p in model.heads[k].parameters())
    policy = offramp.calibrate(few, cheap, target_speedup=2.0)
    expected = policy.provenance["expected"]
    assert row["at_macs_speedup"]["2.0"]["accuracy"] == pytest.approx(expected["accuracy"])
    assert row["at_macs_speedup"]["2.0"]["macs_speedup"] == pytest.approx(expected["macs_speedup"])


def test_the_area_is_the_mean_accuracy_from_half_the_cost_to_all_of_it():
    line = [{"macs_speedup": s, "accuracy": 0.5 + 0.4 / s} for s in (1.0, 1.25, 2.0, 2.5)]
    assert area_of(line) == pytest.approx(0.8)
    assert area_of(line[:2]) is None


def test_over_seeds():
    assert mean_and_deviation([0.5, 0.7]) == {"mean": pytest.approx(0.6), "deviation": pytest.approx(0.1414, abs=1e-3)}
    assert mean_and_deviation([0.5, None]) is None
    rows = [worth(tiny_model(), t, t, simple_costs()) for t in (random_table(seed=0), random_table(seed=1))]
    both = heads_over_seeds(rows)
    first = both["exits"][0]["accuracy"]
    assert first["mean"] == pytest.approx((rows[0]["exits"][0]["accuracy"] + rows[1]["exits"][0]["accuracy"]) / 2)
    assert both["seeds"] == 2


def test_every_run_starts_from_one_before_it_and_can_be_built():
    plan = runs("mixer", 3, 2, 3, 5)
    names = [run.name for run in plan]
    assert len(set(names)) == len(names)
    for number, run in enumerate(plan):
        assert run.start is None or run.start in names[:number]
        OBJECTIVES.resolve(run.objective)(**run.options)
    assert {f"{name}-{method}" for name in ("linear", "lgvit", "mixer") for method in METHODS} <= set(names)
    vit = tiny_vit(depth=12)
    model = offramp.attach(vit, all_heads(vit))
    assert len(model.exits) == 3 * len(HEADS)
    assert [e.after for e in layout("mixer")(vit)] == [4, 5, 6, 7, 8, 9, 10, 11]
