"""Joint training."""

import torch
from helpers import images, tiny_model

from offramp.training import Batch
from offramp.training.objectives.joint import Joint


def test_the_loss_is_the_weighted_sum():
    model = tiny_model()
    x, target = images(8), torch.arange(8) % 5
    losses = [model.task.loss(o, target) for o in model(x)]
    loss = Joint(lambda after: [0.0, 0.25, 0.0, 0.75])(model, Batch(x, target))["loss"]
    assert torch.allclose(loss, 0.25 * losses[1] + 0.75 * losses[3])
