"""Every objective of the table: it learns, and what it says is frozen does not move by one bit."""

import pytest
import torch
from helpers import squares, tiny_vit

import offramp
from offramp import Exit
from offramp.data import ImageDataset
from offramp.registry import OBJECTIVES
from offramp.training import Batch, Stage

pytestmark = pytest.mark.slow

EXITS = [Exit(1, "lph"), Exit(2, "lph", {"depthwise": False}), Exit(2), Exit(3, "gah"), Exit(3, "gah", {"stride": 3})]


def build():
    torch.manual_seed(0)
    return offramp.attach(
        tiny_vit(4, class_token=False, global_pool="avg", drop_rate=0.1, drop_path_rate=0.1), EXITS
    ).eval()


def loss_of(objective, model, samples):
    """The mean over an even and an odd step, which some objectives tell apart."""
    dataset = ImageDataset(samples, model.data_config)
    images = torch.stack([dataset[i][0] for i in range(len(dataset))])
    with torch.no_grad():
        values = [objective(model, Batch(images, torch.as_tensor(samples.targets), step))["loss"] for step in (0, 1)]
    return float(sum(values)) / 2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name, tmp_path):
    samples = squares(64)
    model = build()
    goal = OBJECTIVES.resolve(name)()
    stages = goal.stages(model, samples, tmp_path) if hasattr(goal, "stages") else [Stage(goal)]
    for number, stage in enumerate(stages):
        own = stage.samples or samples
        trained = {id(p) for p in stage.objective.trained(model)}
        frozen = {k: p.detach().clone() for k, p in model.named_parameters() if id(p) not in trained}
        buffers = {k: b.clone() for k, b in model.named_buffers() if k not in statistics_of(model, trained)}
        before = loss_of(stage.objective, model, own)
        offramp.train(
            model,
            own,
            stage.objective,
            folder=tmp_path / str(number),
            epochs=15,
            batch_size=32,
            learning_rate=1e-2,
            precision="fp32",
            device="cpu",
        )
        assert loss_of(stage.objective, model, own) < (0.9 if number == 0 else 1.0) * before
        after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        assert all(torch.equal(after[k], value) for k, value in {**frozen, **buffers}.items())
        assert all(p.requires_grad for p in model.parameters())
        assert not model.training


def statistics_of(model, trained):
    """The buffers of modules whose parameters learn."""
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if any(id(p) in trained for p in module.parameters(recurse=False))
        for name, _ in module.named_buffers(recurse=False)
    }
