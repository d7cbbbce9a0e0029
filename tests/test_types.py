"""Values on the road."""

import pytest
import torch
from helpers import simple_costs

from offramp.types import CostTable, PartCosts, Tap, Trace


def test_tap_counts_its_tokens():
    assert Tap(after=1, dim=8, grid=(3, 5), prefix=2).tokens == 17


def test_cost_to_exit_counts_only_the_heads_that_run():
    costs = simple_costs(exits=2, head=3.0)
    assert costs.to_exit((0, 1)) == (14.0, 27.0, 38.0)
    assert costs.to_exit((1,)) == (11.0, 24.0, 35.0)
    assert costs.to_exit(()) == (11.0, 21.0, 32.0)
    assert costs.to_exit(())[-1] == costs.macs.static


def test_cost_table_survives_json():
    costs = CostTable(
        (1,), PartCosts(1.0, (2.0, 3.0), (4.0,), 5.0), PartCosts(0.1, (0.2, 0.3), (0.4,), 0.5), 8, {"device": "cpu"}
    )
    assert CostTable.from_json(costs.to_json()) == costs
    assert simple_costs() == CostTable.from_json(simple_costs().to_json())


def test_an_unmeasured_unit_is_refused():
    with pytest.raises(ValueError, match="seconds"):
        simple_costs().to_exit((), "seconds")


def test_trace_take_and_cat():
    trace = Trace(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.2, 0.3]))
    back = Trace.cat([trace.take(torch.tensor([2])), trace.take(torch.tensor([0, 1]))])
    assert back.exit.tolist() == [2, 0, 1]
    assert back.output[0].tolist() == [4.0, 5.0]
