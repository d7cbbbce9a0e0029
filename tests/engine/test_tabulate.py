"""The exit table."""

import pytest
import torch
from helpers import batches, tiny_model

import offramp
from offramp import DataError, UsageError


def test_the_table_holds_every_output():
    model, data = tiny_model(), batches(20, 8)
    table = offramp.tabulate(model, data, {"split": "validation"})
    with torch.no_grad():
        expected = torch.stack([torch.cat(parts) for parts in zip(*(model(x) for x, _ in data), strict=True)])
    assert torch.equal(table.outputs, expected)
    assert torch.equal(table.targets, torch.cat([y for _, y in data]))
    assert table.provenance["split"] == "validation"
    assert table.provenance["runtime"] == "torch"
    assert len(table) == 20
    table.outputs.mul_(2)  # an ordinary tensor, not one of inference mode


def test_no_batches():
    with pytest.raises(UsageError, match="nothing to tabulate"):
        offramp.tabulate(tiny_model(), [])


def test_nan_in_the_data():
    with pytest.raises(DataError, match="not finite"):
        offramp.tabulate(tiny_model(), [(torch.full((2, 1, 16, 16), float("nan")), torch.zeros(2))])
