"""Every objective of the table: it learns, and what it says is frozen does not move by one bit."""

import pytest
import torch
from helpers import squares, tiny_model

import offramp
from offramp.data import ImageDataset
from offramp.registry import OBJECTIVES


def loss_of(objective, model, samples):
    dataset = ImageDataset(samples, model.data_config)
    x = torch.stack([dataset[i][0] for i in range(len(dataset))])
    with torch.no_grad():
        return float(objective(model, (x, torch.as_tensor(samples.targets)))["loss"])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name, tmp_path):
    samples = squares(64)
    model = tiny_model(drop_rate=0.1, proj_drop_rate=0.1, drop_path_rate=0.1)
    objective = OBJECTIVES.resolve(name)()
    trained = {id(p) for part in objective.trained(model) for p in part.parameters()}
    frozen = {k: p.detach().clone() for k, p in model.named_parameters() if id(p) not in trained}
    before = loss_of(objective, model, samples)
    offramp.train(
        model,
        samples,
        objective,
        folder=tmp_path,
        epochs=15,
        batch_size=32,
        learning_rate=1e-2,
        precision="fp32",
        device="cpu",
    )
    assert loss_of(objective, model, samples) < 0.8 * before
    after = dict(model.named_parameters())
    assert all(torch.equal(after[k], p) for k, p in frozen.items())
    assert all(p.requires_grad for p in model.parameters())
    assert not model.training
