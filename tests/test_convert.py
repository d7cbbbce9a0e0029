"""Checkpoints of LGViT's authors, against what transformers and the released code compute from the same tensors."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_cli
from released_lgvit import SIZE, Released
from safetensors.torch import load_file, save_file

import offramp
from offramp import ArtifactError
from offramp.convert import lgvit

pytestmark = pytest.mark.slow

FIXTURES = Path(os.environ.get("OFFRAMP_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
released = functools.cache(Released)


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def outputs(model) -> list[torch.Tensor]:
    with torch.no_grad():
        return model(images())


def furthest(ours, theirs) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("form", "exits"), [("vit", 8), ("vit", 6), ("vit", 4), ("vit", 2), ("deit", 8), ("deit", 4), ("swin", 8)]
)
def test_a_checkpoint_becomes_the_same_model(tmp_path, form, exits, kind):
    theirs = released(form, exits)
    theirs.write(tmp_path / "c", kind)
    converted, policy = lgvit(tmp_path / "c")
    assert furthest(outputs(converted), theirs.outputs(images())) < 1e-4
    assert converted.classes[3] == "class 3"
    assert policy.thresholds == (0.8,) * exits
    if exits == 8:
        places = (4, 7, 10, 13, 16, 19, 22, 23) if form == "swin" else (4, 5, 6, 7, 8, 9, 10, 11)
        assert converted.after[:-1] == places


@pytest.mark.parametrize("form", ["vit", "deit", "swin"])
@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.5])
def test_the_eps_of_the_checkpoint_is_honoured_and_saved(tmp_path, form, eps):
    theirs = released(form, eps=eps)
    theirs.write(tmp_path / "c")
    model, _ = lgvit(tmp_path / "c")
    assert furthest(outputs(model), theirs.outputs(images())) < 1e-4
    offramp.save(model, tmp_path / "m")
    again, _ = offramp.load(tmp_path / "m")
    assert all(torch.equal(a, b) for a, b in zip(outputs(again), outputs(model), strict=True))


@pytest.mark.parametrize(("form", "eps"), [("vit", 1e-12), ("deit", 1e-12), ("swin", 1e-5)])
def test_an_eps_that_is_not_given_is_that_of_the_released_code(tmp_path, form, eps):
    released(form).write(tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    del config["layer_norm_eps"]
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))
    norms = [m for m in lgvit(tmp_path / "c")[0].modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {m.eps for m in norms} == {eps}


@pytest.mark.parametrize("form", ["vit", "swin"])
def test_logits_of_the_released_code(tmp_path, form):
    folder = FIXTURES / f"lgvit-{form}"
    if not folder.is_dir():
        pytest.skip(f"no lgvit-{form} (a checkpoint and reference.npz): set OFFRAMP_FIXTURES to the folder that has it")
    reference = np.load(folder / "reference.npz")
    model, policy = lgvit(folder)
    assert policy is None
    with torch.no_grad():
        assert furthest(model(torch.from_numpy(reference["x"])), torch.from_numpy(reference["logits"])) < 1e-5


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"use_absolute_embeddings": True}, "use_absolute_embeddings"),
        ({"layer_norm_eps": "1e-5"}, "the eps of a LayerNorm is a number above 0, not '1e-5'"),
        ({"layer_norm_eps": float("nan")}, "the eps of a LayerNorm is a number above 0, not nan"),
        ({"depths": [2, 2, 18]}, "zip"),
        ({"num_heads": 0}, "not iterable"),
        ({"position_exits": "__import__('os').getcwd()"}, "Expecting value"),  # never evaluated
        ({"position_exits": "[" * 100_000}, "recursion"),
    ],
)
def test_a_configuration_of_something_else_is_refused(tmp_path, config, said):
    released("swin").write(tmp_path / "c", **config)
    with pytest.raises(ArtifactError) as caught:
        lgvit(tmp_path / "c")
    assert f"{tmp_path / 'c' / 'config.json'} does not describe an LGViT model: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_preprocessing_is_that_of_the_checkpoint(tmp_path):
    released("vit").write(tmp_path / "c")
    assert lgvit(tmp_path / "c")[0].input.crop_pct == 1.0
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "c" / "preprocessor_config.json").write_text(json.dumps(values))
    reads = lgvit(tmp_path / "c")[0].input
    assert (reads.mean, reads.std, reads.input_size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (3, 64, 64))


def test_the_command_writes_an_artifact(tmp_path, monkeypatch, capsys):
    released("swin").write(tmp_path / "c")
    code, out, _ = run_cli(monkeypatch, capsys, "convert", "lgvit", tmp_path / "c", tmp_path / "m", "--json")
    assert code == 0
    assert json.loads(out)["exits"] == [4, 7, 10, 13, 16, 19, 22, 23]
    assert furthest(outputs(offramp.load(tmp_path / "m")[0]), released("swin").outputs(images())) < 1e-4


def test_a_checkpoint_is_not_replaced_by_what_it_becomes(tmp_path, monkeypatch, capsys):
    released("vit").write(tmp_path / "c")
    before = {f.name: f.read_bytes() for f in (tmp_path / "c").iterdir()}
    code, _, err = run_cli(monkeypatch, capsys, "convert", "lgvit", tmp_path / "c", tmp_path / "c")
    assert code == 2
    assert "is no artifact; it is left as it is" in " ".join(err.split())
    assert {f.name: f.read_bytes() for f in (tmp_path / "c").iterdir()} == before


def test_keys_that_are_not_known_are_named(tmp_path, monkeypatch, capsys):
    weights = released("vit").write(tmp_path / "c")
    weights |= {"deit.encoder.extra.weight": torch.zeros(1), "deit.encoder.highway.2.mlp.conv2.7.bias": torch.zeros(1)}
    save_file(weights, tmp_path / "c" / "model.safetensors")
    left_out = "that are not known were left out: deit.encoder.extra.weight, highway 2: mlp.conv2.7.bias"
    with pytest.warns(UserWarning, match="left out") as told:
        lgvit(tmp_path / "c")
    assert [str(one.message) for one in told] == [f"keys of {tmp_path / 'c'} {left_out}"]
    code, _, err = run_cli(monkeypatch, capsys, "convert", "lgvit", tmp_path / "c", tmp_path / "m")
    assert code == 0
    assert err == f"offramp: keys of {tmp_path / 'c'} {left_out}\n"
    del weights["deit.layernorm.bias"]
    save_file(weights, tmp_path / "c" / "model.safetensors")
    with pytest.raises(ArtifactError) as caught:
        lgvit(tmp_path / "c")
    assert "missing: backbone.model.norm.bias; not known: deit.encoder.extra.weight" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("swin.encoder.layers.2.blocks.3.attention.self.key.weight", lambda tensor: None),
        ("swin.encoder.layers.2.blocks.3.attention.self.key.weight", lambda tensor: tensor[:, :8]),
        ("swin.encoder.layers.2.highway.4.classifier.layernorm.weight", lambda tensor: None),
        ("swin.encoder.layers.1.highway.0.classifier.classifier.weight", lambda tensor: tensor[:3]),
        ("classifier.bias", lambda tensor: tensor[:3]),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_sentence(tmp_path, key, change):
    released("swin").write(tmp_path / "c")
    weights = load_file(tmp_path / "c" / "model.safetensors")
    changed = change(weights.pop(key))
    if changed is not None:
        weights[key] = changed.contiguous()
    save_file(weights, tmp_path / "c" / "model.safetensors")
    with pytest.raises(ArtifactError, match="are not those of an LGViT model; ") as caught:
        lgvit(tmp_path / "c")
    assert "\n" not in str(caught.value)


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    released("vit").write(tmp_path / "c", "bin")
    torch.save({"a": Evil()}, tmp_path / "c" / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="not opened"):
        lgvit(tmp_path / "c")
    torch.save([torch.zeros(1)], tmp_path / "c" / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="no table of named tensors"):
        lgvit(tmp_path / "c")


def test_nothing_there(tmp_path):
    with pytest.raises(ArtifactError, match=r"config\.json could not be read"):
        lgvit(tmp_path)
