"""Frozen training."""

import copy

import pytest
import torch
from helpers import images, squares, tiny_model, tiny_vit
from torch import nn

import offramp
from offramp import Exit, UsageError

pytestmark = pytest.mark.slow


class NormTokens(nn.Module):
    """BatchNorm over tokens: running statistics that training could move."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def test_the_final_exit_is_bit_identical_with_batchnorm_and_dropout(tmp_path):
    vit = tiny_vit(4, drop_rate=0.2, pos_drop_rate=0.2, proj_drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.2)
    vit.norm_pre = NormTokens(32)
    vit.blocks[1].norm1 = NormTokens(32)
    vit.train()(images(32))  # running statistics that are not the initial ones
    original = copy.deepcopy(vit).eval()
    state = {k: v.clone() for k, v in vit.state_dict().items()}
    model = offramp.attach(vit, [Exit(1), Exit(3, "mlp", {"dropout": 0.5})])
    heads = copy.deepcopy(model.heads.state_dict())
    offramp.train(model, squares(64), "frozen", folder=tmp_path, epochs=3, batch_size=16, device="cpu")
    x = images(9, seed=5)
    assert torch.equal(model(x)[-1], original(x))
    assert all(torch.equal(v, state[k]) for k, v in vit.state_dict().items())
    assert not any(torch.equal(v, heads[k]) for k, v in model.heads.state_dict().items())


def test_each_head_trains_as_if_it_were_alone():
    from offramp.training import Batch
    from offramp.training.objectives.frozen import Frozen

    both = tiny_model(after=(1, 3))
    batch = Batch(images(8), torch.arange(8) % 5)
    Frozen()(both, batch)["loss"].backward()
    alone = both.task.loss(both(batch.inputs)[1], batch.targets)
    expected = torch.autograd.grad(alone, list(both.heads[1].parameters()))
    assert all(torch.allclose(p.grad, g) for p, g in zip(both.heads[1].parameters(), expected, strict=True))


def test_no_heads_nothing_to_train(tmp_path):
    model = tiny_model(after=())
    with pytest.raises(UsageError, match="no early exits"):
        offramp.train(model, squares(64), "frozen", folder=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
