"""Every objective of the table: it learns, and what it says is frozen does not move by one bit."""

import pytest
import torch
from helpers import squares, tiny_vit

import offramp
from offramp.data.prepared import Prepared
from offramp.registry import OBJECTIVES
from offramp.testing import check_objective
from offramp.training.objectives.mt_vit import MTViT

pytestmark = pytest.mark.slow


def routed():
    """Two paths and a predictor; what is answered at first is right now and then."""
    torch.manual_seed(0)
    return offramp.attach(
        tiny_vit(4, class_token=False, global_pool="avg"), [offramp.Exit(2)], tails=[2, 4], router="cnn"
    ).eval()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name, tmp_path):
    check_objective(name, tmp_path, routed() if name.startswith("mt-vit") else None)


@pytest.mark.parametrize("name", ["joint", "frozen", "backbone", "self-distillation", "mixed"])
def test_objective_over_paths(name, tmp_path):
    check_objective(name, tmp_path, routed())


@pytest.mark.parametrize("name", ["lgvit", "fine-tune", "layerwise", "gradient-equilibrium"])
def test_a_method_of_one_path_says_so(name, tmp_path):
    with pytest.raises(offramp.UsageError, match="trains one path"):
        check_objective(name, tmp_path, routed())


def test_a_router_that_is_not_there_cannot_learn(tmp_path):
    for name in ("mt-vit", "mt-vit-supervised"):
        with pytest.raises(offramp.UsageError, match="this trains a router"):
            check_objective(name, tmp_path)


def test_a_router_learns_alone_on_a_frozen_encoder(tmp_path):
    model = routed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"folder": tmp_path / "run", "epochs": 2, "batch_size": 32, "precision": "fp32", "device": "cpu"}
    offramp.train(model, squares(64), MTViT(encoder=False), **options)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("router.") for name in moved)


@pytest.mark.parametrize("balance", [0.0, 2.0])
def test_without_the_balance_term_everybody_goes_one_way(balance, tmp_path):
    """A cost that only the cheapest path meets pulls everybody there; the balance term holds some back."""
    model = routed()
    objective = MTViT(target=0.0, cost=5.0, balance=balance, temperature=1.0)
    offramp.train(
        model,
        squares(64),
        objective,
        folder=tmp_path / "run",
        epochs=30,
        batch_size=32,
        learning_rate=1e-2,
        precision="fp32",
        device="cpu",
    )
    x = torch.stack([Prepared(squares(64), model.input)[i][0] for i in range(64)])
    with torch.no_grad():
        mean = model.route(x)[0].softmax(1).mean(0)
    assert (mean.min() < 0.05) == (balance == 0.0), mean
