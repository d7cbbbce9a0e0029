"""A cache of features: what the backbone gives, rounded to fp16, and heads that learn from it in its place."""

import os
import shutil

import pytest
import torch
from helpers import squares, tiny_model, tiny_vit

import offramp
from offramp import DataError, Exit, Features, UsageError
from offramp.data import loader

pytestmark = pytest.mark.slow

HEADS = [Exit(1), Exit(2, "lph"), Exit(2, "mlp"), Exit(3, "cnn-add")]


def model_of(exits=HEADS, seed=0, **options):
    torch.manual_seed(seed)
    return offramp.attach(tiny_vit(**options), exits).eval()


def all_of(samples, model):
    return [x for x, _ in loader(samples, model.input, 16)]


def test_features_are_the_backbones_bit_for_bit_rounded_to_fp16(tmp_path):
    model, samples = model_of(), squares(70)
    cached = Features(model, tmp_path)
    kept = cached.of(samples, "train", batch_size=16)
    assert list(cached.model.input.shapes) == ["1", "2", "3", "4", "final"], "a block that two exits read is kept once"
    assert (kept.targets == samples.targets).all()
    for x, features in zip(all_of(samples, model), all_of(kept, cached.model), strict=True):
        with torch.inference_mode():
            states = dict(model.states(x))
            for block, k in ((0, 0), (1, 1), (1, 2), (2, 3)):
                assert features[block].dtype == torch.float16
                assert torch.equal(features[block], states[k].half())
            assert torch.equal(features[3], states[4].half())
            assert torch.equal(features[4], model(x)[-1]), "the final exit answers as it does, in fp32"


def test_heads_learn_from_it_in_place_and_the_backbone_does_not(tmp_path):
    """As through the backbone, up to what fp16 rounds off."""
    settings = {"epochs": 3, "batch_size": 16, "precision": "fp32", "device": "cpu", "seed": 3}
    samples = squares(96)
    plain, model = model_of(), model_of()
    offramp.train(plain, samples, "frozen", folder=tmp_path / "plain", **settings)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cached = Features(model, tmp_path / "features")
    kept = cached.of(samples, "train")
    offramp.train(cached.model, kept, "frozen", folder=tmp_path / "run", validation=kept, **settings)
    for name, value in model.state_dict().items():
        if name.startswith("heads."):
            assert torch.allclose(value, plain.state_dict()[name], atol=2e-2), name
        else:
            assert torch.equal(value, before[name]), name
    assert not torch.equal(model.heads[0].classifier.weight, before["heads.0.classifier.weight"])
    found = offramp.tabulate(cached.model, loader(kept, cached.model.input))
    expected = offramp.tabulate(model, loader(samples, model.input))
    assert torch.equal(found.of(-1), expected.of(-1))
    assert torch.allclose(found.outputs, expected.outputs, atol=2e-2)
    assert found.chain == expected.chain


@pytest.mark.parametrize("objective", ["frozen", "head-distillation"])
def test_whatever_trains_heads_alone_learns_from_it(objective, tmp_path):
    model = model_of([Exit(1), Exit(2)])
    cached = Features(model, tmp_path / "features")
    offramp.train(
        cached.model, cached.of(squares(64), "train"), objective, folder=tmp_path / "run", epochs=1, device="cpu"
    )


def test_what_was_killed_goes_on_where_it_stopped(tmp_path, monkeypatch):
    model, samples = model_of(), squares(16 * 40)
    Features(model, tmp_path / "whole").of(samples, "train", batch_size=16)
    cached, calls = Features(model, tmp_path / "cut"), []
    states = model.states

    def counted(x, entry=0):
        calls.append(len(x))
        if len(calls) == 36:
            raise KeyboardInterrupt
        return states(x, entry)

    monkeypatch.setattr(model, "states", counted)
    with pytest.raises(KeyboardInterrupt):
        cached.of(samples, "train", batch_size=16)
    cached.of(samples, "train", batch_size=16)
    assert calls[36:] == [16] * 8, "32 batches were kept"
    for file in (tmp_path / "whole/train").glob("*.npy"):
        assert file.read_bytes() == (tmp_path / "cut/train" / file.name).read_bytes()
    del calls[:]
    cached.of(samples, "train")
    assert not calls, "complete: nothing is computed"


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: (model_of(), squares(48)), "another samples"),
        (lambda: (model_of(), squares(64, seed=5)), "another fingerprint"),
        (lambda: (model_of(seed=1), squares(64)), "another backbone"),
    ],
)
def test_features_of_something_else_are_refused(other, what, tmp_path):
    Features(model_of(), tmp_path).of(squares(64), "train")
    model, samples = other()
    with pytest.raises(UsageError, match=what):
        Features(model, tmp_path).of(samples, "train")
    Features(model_of([Exit(1)]), tmp_path).of(squares(64), "fewer")
    with pytest.raises(UsageError, match=r"another blocks \(\[1, 4\], not \[1, 2, 3, 4\]\)"):
        Features(model_of(), tmp_path).of(squares(64), "fewer")


def test_a_folder_with_more_blocks_than_are_wanted_will_do(tmp_path):
    samples = squares(40)
    kept = Features(model_of(), tmp_path).of(samples, "train")
    few = Features(model_of([Exit(2)]), tmp_path)
    found = few.of(samples, "train")
    assert list(few.model.input.shapes) == ["2", "4", "final"]
    assert torch.equal(found.read(7)[0], kept.read(7)[1])


def test_a_folder_that_was_removed_is_read_anew(tmp_path):
    for seed in (0, 1):
        model = model_of(seed=seed)
        cached = Features(model, tmp_path)
        kept = cached.of(squares(32), "train")
        with torch.inference_mode():
            expected = next(iter(model.states(all_of(squares(32), model)[0])))[1].half()
        assert torch.equal(all_of(kept, cached.model)[0][0], expected)
        shutil.rmtree(tmp_path / "train")


def test_what_cannot_be_kept_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no early exits"):
        Features(model_of([]), tmp_path)
    with pytest.raises(UsageError, match="a cache of features trains one path"):
        Features(offramp.attach(tiny_vit(), [Exit(1)], tails=[2, 4]), tmp_path)
    model = model_of()
    with torch.no_grad():
        model.backbone.model.pos_embed.fill_(1e6)
    with pytest.raises(DataError, match="block 1 computes is beyond what fp16 holds"):
        Features(model, tmp_path).of(squares(20), "train")
    cached = Features(model_of(), tmp_path / "augmented")
    kept = cached.of(squares(64), "train")
    with pytest.raises(UsageError, match="cannot be augmented"):
        offramp.train(cached.model, kept, "frozen", folder=tmp_path / "r", augment={"hflip": 0.5}, device="cpu")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left"):
        Features(tiny_model(), tmp_path / "full").of(squares(20), "train")
