"""The bias of a router: what is worth most is found from wherever the search begins."""

import pytest
import torch
from helpers import images, tiny_vit

import offramp
from offramp.calibration import columns_of
from offramp.search.bias import best_bias, enters


@pytest.fixture(scope="module")
def columns():
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [], tails=[1, 2, 4], router="cnn").eval()
    with torch.no_grad():
        for p in model.router.parameters():
            p.normal_(std=0.5)
    x, targets = images(200), torch.arange(200) % 5
    return columns_of(offramp.tabulate(model, [(x, targets)]), offramp.profile(model, repeats=0))


STARTS = [(0.0, 0.0, 0.0), (0.0, 50.0, 49.0), (0.0, 49.0, 50.0), (0.0, -50.0, 50.0), (0.0, 50.0, -50.0)]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("best", range(3))
def test_where_one_path_is_best_for_all_everybody_enters_it(columns, start, best):
    worth = torch.zeros(3, 200, dtype=torch.float64)
    worth[best] = 1.0
    bias = start
    for _ in range(3):
        bias = best_bias(columns, worth, bias)
    assert (enters(columns, bias) == best).all()


@pytest.mark.parametrize("start", STARTS)
def test_no_start_is_worse_than_everybody_on_the_cheapest_path(columns, start):
    g = torch.Generator().manual_seed(1)
    for price in (0.0, 0.1, 0.3, 1.0):
        worth = (torch.rand(3, 200, generator=g) < 0.7).double() - price * torch.tensor([[0.2], [0.5], [1.0]])
        found = enters(columns, best_bias(columns, worth, start))
        assert worth.gather(0, found[None]).sum() >= worth[0].sum() - 1e-9
