"""Saving and loading."""

import json

import pytest
import torch
from helpers import batches, images, tiny_model

import offramp
from offramp import ArtifactError, DataError, Exit, UsageError
from offramp.artifact import load_artifact, save_table
from offramp.heads.linear import Linear
from offramp.policies.threshold import Threshold


@pytest.fixture
def saved(tmp_path):
    model = tiny_model(head="mlp")
    table, costs = offramp.tabulate(model, batches(50)), offramp.profile(model, repeats=1)
    policy = offramp.calibrate(table, costs, target_speedup=1.2)
    offramp.save(model, tmp_path / "m", policy, table, costs, {"why": "test"})
    return model, policy, table, costs, tmp_path / "m"


def test_round_trip(saved):
    model, policy, table, costs, path = saved
    again = load_artifact(path)
    x = images(4)
    assert all(torch.equal(a, b) for a, b in zip(model(x), again.model(x), strict=True))
    assert again.policy == policy
    assert again.policy.provenance == policy.provenance
    assert torch.equal(again.table.outputs, table.outputs)
    assert (again.table.after, again.table.heads, again.table.task) == (table.after, table.heads, table.task)
    assert again.costs == costs
    assert again.record == {"why": "test"}
    assert not again.model.training
    assert again.model.data_config == model.data_config
    assert sorted(f.suffix for f in path.iterdir()) == [".json"] * 3 + [".md"] + [".safetensors"] * 2


def test_load_returns_model_and_policy(saved):
    _, policy, _, _, path = saved
    model, loaded = offramp.load(path)
    assert loaded == policy
    assert model.after == (1, 2, 3, 4)


def test_the_backbone_part_is_plain_timm(saved):
    import timm
    from safetensors.torch import load_file

    model, *_, path = saved
    config = json.loads((path / "config.json").read_text())["backbone"]
    plain = timm.create_model(config["name"], **config["args"]).eval()
    prefix = "backbone.model."
    weights = load_file(path / "model.safetensors")
    plain.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    x = images(2)
    assert torch.equal(plain(x), model(x)[-1])


def damage(path, what):
    config = json.loads((path / "config.json").read_text())
    weights = (path / "model.safetensors").read_bytes()
    if what == "truncated":
        (path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    elif what == "missing":
        (path / "model.safetensors").unlink()
    elif what == "pickle":
        torch.save({"a": 1}, path / "model.safetensors")
    elif what == "newer":
        (path / "config.json").write_text(json.dumps({**config, "format": 99}))
    elif what == "foreign":
        (path / "config.json").write_text('{"model_type": "vit"}')
    elif what == "broken json":
        (path / "config.json").write_text('{"format": 1')
    elif what == "other model":
        config["backbone"]["args"]["embed_dim"] = 64
        (path / "config.json").write_text(json.dumps(config))
    elif what == "unknown model":
        config["backbone"]["name"] = "hf-hub:somebody/something"
        (path / "config.json").write_text(json.dumps(config))
    elif what == "checkpoint":
        config["backbone"]["args"]["checkpoint_path"] = "evil.pth"
        (path / "config.json").write_text(json.dumps(config))
    elif what == "policy":
        (path / "policy.json").write_text('{"policy": "threshold", "thresholds": [2.0]}')


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "damaged or incomplete"),
        ("missing", "missing"),
        ("pickle", "damaged or incomplete"),
        ("newer", "format 99"),
        ("foreign", "damaged or not Offramp's"),
        ("broken json", "damaged or not Offramp's"),
        ("other model", "do not fit"),
        ("unknown model", "has no model"),
        ("checkpoint", "not taken from a file"),
        ("policy", "no policy"),
    ],
)
def test_damaged_artifacts_say_so_in_one_sentence(saved, what, message):
    path = saved[-1]
    damage(path, what)
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    with pytest.raises(ArtifactError, match=message) as caught:
        offramp.load(path)
    assert "\n" not in str(caught.value)
    assert {f.name: f.read_bytes() for f in path.iterdir()} == before


def test_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="there is no artifact"):
        offramp.load(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_old_artifact(saved, monkeypatch):
    model, *_, path = saved
    before = {f.name: f.read_bytes() for f in path.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("offramp.artifact.save_file", full)
    with pytest.raises(DataError, match=r"nothing was changed.*No space left"):
        offramp.save(model, path)
    assert {f.name: f.read_bytes() for f in path.iterdir()} == before
    assert list(path.parent.iterdir()) == [path]


def test_saving_again_replaces_the_whole_folder(saved):
    model, *_, path = saved
    offramp.save(model, path)
    assert offramp.load(path)[1] is None


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="is no artifact"):
        offramp.save(tiny_model(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "important"


def test_a_head_without_a_name_cannot_be_saved(tmp_path):
    model = tiny_model()
    model.exits = (Exit(1, Linear), *model.exits[1:])
    with pytest.raises(UsageError, match="in no table"):
        offramp.save(model, tmp_path / "m")


def test_a_foreign_file_is_no_table(tmp_path, saved):
    from offramp.artifact import load_table

    with pytest.raises(ArtifactError, match="no exit table"):
        load_table(saved[-1] / "model.safetensors")


def test_table_round_trip_alone(tmp_path, saved):
    from offramp.artifact import load_table

    save_table(saved[2], tmp_path / "t.safetensors")
    assert torch.equal(load_table(tmp_path / "t.safetensors").targets, saved[2].targets)


def test_policy_file_round_trip(tmp_path):
    from offramp.policies import load_policy, save_policy

    policy = Threshold((0.25, None, 1.0))
    save_policy(policy, tmp_path / "p.json")
    assert load_policy(tmp_path / "p.json") == policy


def test_weights_that_fp16_holds_are_stored_in_it_and_come_back_the_same(tmp_path):
    from offramp.artifact import round_to_fp16

    model = tiny_model()
    offramp.save(model, tmp_path / "whole")
    round_to_fp16(model)
    offramp.save(model, tmp_path / "half")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    again, _ = offramp.load(tmp_path / "half")
    assert all(p.dtype == torch.float32 for p in again.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model(images(4)), again(images(4)), strict=True))
