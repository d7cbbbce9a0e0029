"""Attaching exits."""

import pytest
import torch
from helpers import images, tiny_model, tiny_vit
from torch import nn

import offramp
from offramp import DataError, Exit, UsageError
from offramp.heads.linear import Linear
from offramp.heads.mlp import MLP


def test_outputs_in_order_final_last():
    torch.manual_seed(0)
    vit = tiny_vit().eval()
    model = offramp.attach(vit, [Exit(3), Exit(1, "mlp")]).eval()
    assert model.after == (1, 3, 4)
    assert model.head_names == ("mlp", "linear", "final")
    x = images(3)
    outputs = model(x)
    assert [tuple(o.shape) for o in outputs] == [(3, 5)] * 3
    assert torch.equal(outputs[-1], vit(x))


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ([Exit(0)], "exit after block 0"),
        ([Exit(4)], "exits stand after blocks 1 to 3"),
        ([Exit(9)], "exit after block 9"),
        ([Exit(2), Exit(2)], "two exits after block 2"),
        ([Exit(2), Exit(2, "mlp"), Exit(2)], "two exits after block 2"),
        ([Exit(2), Exit(1), Exit(2, "mlp"), Exit("blocks.1")], "two exits after block 2"),
        ([Exit("blocks.1", "mlp"), Exit(2, Linear), Exit(2, MLP)], "two exits after block 2"),
        (
            [Exit(2, "gah", {"stride": 3, "norm_eps": 1e-6}), Exit(2), Exit(2, "gah", {"norm_eps": 1e-6, "stride": 3})],
            "block 2 with",
        ),
        ([Exit(2, "lineer")], "did you mean 'linear'"),
        ([Exit(2, "linear", {"width": 3})], "head 'linear' after block 2 could not be built"),
    ],
)
def test_exits_that_cannot_be(exits, message):
    with pytest.raises(UsageError, match=message):
        offramp.attach(tiny_vit(), exits)


def test_a_model_that_cannot_be_cut():
    with pytest.raises(UsageError, match="no backbone family can cut a Linear"):
        offramp.attach(nn.Linear(2, 2), [])


def test_class_names_must_fit():
    with pytest.raises(UsageError, match="2 class names for a model with 5 outputs"):
        offramp.attach(tiny_vit(), [], classes=["a", "b"])


def test_a_head_may_be_the_class_itself():
    model = offramp.attach(tiny_vit(), [Exit(1, Linear)])
    assert model.head_names == ("linear", "final")
    assert model.exits == (Exit(1),)  # by its name, so that it can be saved


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 16, 12), (1, 16, 16)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match=r"the model takes images of shape \(batch, 1, 16, 16\)"):
        tiny_model()(torch.zeros(shape))


def test_no_weight_decay_names_are_parameters():
    model = tiny_model()
    named = dict(model.named_parameters())
    assert "backbone.model.pos_embed" in model.no_weight_decay() & named.keys()


def test_preprocessing_fits_the_model_as_it_was_built():
    import timm

    grey = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, in_chans=1, depth=2)
    reads = offramp.attach(grey, []).input
    assert reads.input_size == (1, 32, 32)
    assert len(reads.mean) == len(reads.std) == 1


def test_several_heads_after_one_block_and_a_policy_that_uses_one():
    from offramp.policies.threshold import Threshold

    torch.manual_seed(0)
    vit = tiny_vit().eval()
    model = offramp.attach(vit, [Exit(2), Exit(2, "mlp"), Exit(2, "gah"), Exit(2, "gah", {"stride": 3})]).eval()
    assert model.after == (2, 2, 2, 2, 4)
    x = images(3)
    outputs = model(x)
    alone = offramp.attach(vit, [Exit(2, "mlp")]).eval()
    alone.heads[0].load_state_dict(model.heads[1].state_dict())
    assert torch.equal(outputs[1], alone(x)[0])
    costs, one = offramp.profile(model, repeats=0), offramp.profile(alone, repeats=0)
    assert costs.to_exit((1,))[1] == one.to_exit((0,))[0]
    assert costs.macs.static == one.macs.static
    ran = []
    for k, head in enumerate(model.heads):
        head.register_forward_hook(lambda *_, k=k: ran.append(k))
    trace = offramp.run(model, x, Threshold((None, 0.0, None, None)))
    assert trace.exit.tolist() == [1, 1, 1]
    assert ran == [1]
