"""Chances in place of what happened: their mean, what they cannot follow, and what is left as it is."""

import pytest
import torch
from helpers import random_table, simple_costs

from offramp import ExitTable
from offramp.search import TableColumns
from offramp.search.smooth import smoothed


def columns(table):
    found = TableColumns(table, simple_costs(exits=len(table.outputs) - 1))
    return found.on().quality, found.smoothed().on().quality


def test_chances_are_right_on_average_and_lie_between_0_and_1():
    was, chance = columns(random_table(400))
    assert torch.allclose(was.mean(1), chance.mean(1), atol=1e-3)
    assert chance.shape == was.shape
    assert 0 < chance.min() <= chance.max() < 1


def test_the_surer_half_has_the_better_chance():
    table = random_table(2000)
    scores = TableColumns(table, simple_costs()).on().scores
    was, chance = columns(table)
    for k, own in enumerate(scores):
        sure = own >= own.median()
        assert chance[k][sure].mean() == pytest.approx(float(was[k][sure].mean()), abs=0.03)
        assert chance[k][sure].mean() > chance[k][~sure].mean()


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_samples_and_exits_that_are_always_right_do_no_harm(rows):
    targets = torch.zeros(rows, dtype=torch.long)
    outputs = torch.tensor([3.0, 0.0]).expand(2, rows, 2).clone()
    outputs[0, 0] = torch.tensor([0.0, 3.0])  # the early exit is wrong once
    table = ExitTable(outputs, targets, (1, 2), ("linear", "final"), "classification")
    was, chance = columns(table)
    assert torch.isfinite(chance).all()
    assert torch.equal(chance[1], was[1])  # always right
    assert chance[0].mean() == pytest.approx(float(was[0].mean()), abs=0.05)


def test_what_numbers_are_worth_is_left_as_it_is():
    table = ExitTable(torch.rand(3, 40, 1), torch.rand(40), (1, 2, 3), ("linear", "linear", "final"), "counting")
    was, chance = columns(table)
    assert torch.equal(was, chance)


def test_scores_at_the_ends_of_their_range_are_read():
    scores = torch.tensor([[0.0, 1.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    right = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    assert torch.isfinite(smoothed(right, scores)).all()
