"""Replay, by hand."""

import pytest
import torch
from helpers import random_table

from offramp import ExitTable, UsageError, replay
from offramp.policies.threshold import Threshold


def test_the_first_exit_that_lets_go_counts():
    sure, unsure = [9.0, 0.0], [0.1, 0.0]
    outputs = torch.tensor([[sure, unsure, unsure], [unsure, sure, unsure], [unsure, unsure, unsure]])
    table = ExitTable(outputs, torch.zeros(3), (1, 2, 3), ("linear", "linear", "final"), "classification")
    trace = replay(Threshold((0.9, 0.9)), table)
    assert trace.exit.tolist() == [0, 1, 2]
    assert trace.output.tolist() == [outputs[0, 0].tolist(), outputs[1, 1].tolist(), outputs[2, 2].tolist()]
    assert replay(Threshold((None, 0.9)), table).exit.tolist() == [2, 1, 2]


def test_a_policy_for_more_exits_than_there_are():
    with pytest.raises(UsageError, match="the table has 2 early exits"):
        replay(Threshold((0.5,) * 3), random_table(exits=2))
