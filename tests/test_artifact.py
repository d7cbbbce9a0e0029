"""Saving and loading."""

import json

import numpy as np
import pytest
import torch
from helpers import batches, images, tiny_model

import offramp
from offramp import ArtifactError, DataError, Exit, UsageError
from offramp.artifact import load_artifact, save_table
from offramp.artifact.saved import sealed
from offramp.heads.linear import Linear
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow


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
    assert again.model.input == model.input
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
    elif what == "deep json":
        (path / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    elif what == "changed":
        (path / "config.json").write_text(json.dumps({**config, "classes": list("abcde")}))
    elif what == "policy":
        (path / "policy.json").write_text('{"policy": "threshold", "thresholds": [0.5, 0.5, 0.5]}')
    elif what == "one more file":
        (path / "costs.json").rename(path / "policy.json")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", r"model\.safetensors is damaged"),
        ("missing", "missing"),
        ("pickle", r"model\.safetensors is damaged"),
        ("newer", "format 99"),
        ("foreign", "damaged or not Offramp's"),
        ("broken json", "damaged or not Offramp's"),
        ("deep json", "damaged or not Offramp's"),
        ("changed", "was changed after it was saved"),
        ("policy", r"policy\.json is damaged or was changed"),
        ("one more file", "missing"),
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


def test_every_bit_of_every_file_counts(saved):
    path = saved[-1]
    rng = np.random.default_rng(0)
    for file in sorted(path.iterdir()):
        if file.name == "card.md":
            continue
        content = file.read_bytes()
        for place in rng.integers(0, len(content), 12):
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            try:
                offramp.load(path)
            except ArtifactError:
                continue
            finally:
                file.write_bytes(content)
            assert json.loads(flipped) == json.loads(content), f"byte {place} of {file.name} may be another"


def reseal(path, change):
    """Somebody changes the configuration and knows how to make its checksum."""
    config = json.loads((path / "config.json").read_text())
    change(config)
    files = config.pop("sha256")["files"]
    (path / "config.json").write_text(json.dumps(sealed(config, files)))


def backbone(**arguments):
    return lambda config: config["backbone"]["args"].update(arguments)


def head(**options):
    return lambda config: config["exits"][1]["options"].update(options)


def final(outputs, after=4):
    head = {"after": after, "head": "linear", "options": {}}
    return lambda config: config.update(final=head, num_outputs=outputs)


def huge_images(config):
    config["backbone"] = {"name": "resnet18", "args": {"num_classes": 5}}
    config["input"]["input_size"] = [3, 60_000, 60_000]


DEMANDS = {
    "width": (backbone(embed_dim=65_536, num_heads=2), "do not fit"),
    "classes": (backbone(num_classes=90_000), "do not fit|class names|outputs"),
    "blocks": (backbone(depth=100_000), "more parameters than there are weights"),
    "more blocks": (backbone(depth=10**12), "beyond what any model has"),
    "a larger image": (backbone(img_size=100_000), "an input that makes"),
    "images": (huge_images, "channels, height, width, at most"),
    "a head's width": (head(hidden=[100_000, 1]), "do not fit"),
    "a head's depth": (head(hidden=[1] * 1000), "more parameters than there are weights"),
    "a ratio": (backbone(mlp_ratio=1e300), "beyond what any model has"),
    "text for a number": (backbone(depth="4"), "does not describe"),
    "nothing for a number": (backbone(depth=None), "does not describe"),
    "weights from elsewhere": (backbone(checkpoint_path="evil.pth"), "not taken from a file"),
    "a name of the hub": (lambda c: c["backbone"].update(name="hf-hub:somebody/something"), "has no model"),
    "an exit too deep": (lambda c: c["exits"][0].update(after=99), "this backbone has 4 blocks"),
    "an exit that is none": (lambda c: c["exits"].append(3), "valid dictionary"),
    "another interpolation": (lambda c: c["input"].update(interpolation="nonsense"), "does not describe"),
    "another size": (lambda c: c["input"].update(input_size=[1, 32, 32]), "an input that makes|not fit"),
    "another input": (lambda c: c["input"].update(name="nothing"), "there is no input 'nothing'"),
    "an input without a name": (lambda c: c.update(input={}), "an input has a name"),
    "a field of no input": (lambda c: c["input"].update(colour="blue"), "has no 'colour'"),
    "outputs": (lambda c: c.update(num_outputs=6), "classifier has 5 outputs, not 6"),
    "endless outputs": (final(10**12), "beyond what any model has"),
    "another final exit": (final(5), "do not fit"),
    "many outputs": (final(90_000), "do not fit|class names"),
    "a final exit too soon": (final(5, after=2), "final stands after the last block"),
    "a class too few": (lambda c: c.update(classes=["a"]), "1 class names"),
    "a score": (lambda c: c.update(task="counting"), "does not fit this model|another model"),
}


@pytest.mark.parametrize(("change", "message"), DEMANDS.values(), ids=DEMANDS.keys())
def test_a_configuration_cannot_ask_for_more_than_its_weights(saved, change, message):
    path = saved[-1]
    reseal(path, change)
    asked = peak_memory()
    with pytest.raises(ArtifactError, match=message) as caught:
        offramp.load(path)
    assert "\n" not in str(caught.value)
    assert peak_memory() - asked < 500, "megabytes"


def peak_memory() -> float:
    """Of this process so far, in megabytes."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_policies_and_costs_of_another_model(saved, tmp_path):
    _, policy, table, costs, _ = saved
    other = tiny_model(after=(1, 2))
    for wrong, message in (
        ({"policy": policy}, "does not fit|for 3 early exits|needs exits"),
        ({"table": table}, "table of another model"),
        ({"costs": costs}, "costs of another model"),
    ):
        offramp.save(other, tmp_path / "other", **wrong)
        with pytest.raises(ArtifactError, match=message):
            offramp.load(tmp_path / "other")


def test_an_artifact_of_format_1_is_still_read(saved):
    model, policy, *_, path = saved
    config = json.loads((path / "config.json").read_text())
    del config["sha256"]
    (path / "config.json").write_text(json.dumps({**config, "format": 1}))
    again, found = offramp.load(path)
    assert found == policy
    assert torch.equal(again(images(2))[0], model(images(2))[0])


def test_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="there is no artifact"):
        offramp.load(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_old_artifact(saved, monkeypatch):
    model, *_, path = saved
    before = {f.name: f.read_bytes() for f in path.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("offramp.artifact.saved.save_file", full)
    with pytest.raises(DataError, match=r"nothing was changed.*No space left"):
        offramp.save(model, path)
    assert {f.name: f.read_bytes() for f in path.iterdir()} == before
    assert list(path.parent.iterdir()) == [path]


def test_saving_again_replaces_what_is_ours_and_nothing_else(saved):
    model, *_, path = saved
    others = {path / ".git" / "HEAD": "ref: x", path / "README.md": "mine", path / "notes" / "a.txt": "important"}
    for file, text in others.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    offramp.save(model, path)
    assert offramp.load(path)[1] is None
    assert not (path / "validation.safetensors").exists(), "the table of the one before is no longer true"
    assert {file: file.read_text() for file in others} == others
    assert sorted(f.name for f in path.iterdir() if not f.name.startswith(".git")) == [
        "README.md",
        "card.md",
        "config.json",
        "model.safetensors",
        "notes",
    ]


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "important"},
        {"config.json": '{"model_type": "vit"}', "model.safetensors": "weights", ".git/HEAD": "x"},
        {"config.json": '{"format": "pt", "architectures": []}'},
        {"config.json": '{"format": 1'},
    ],
)
def test_a_folder_with_something_else_is_left_alone(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="is no artifact"):
        offramp.save(tiny_model(), tmp_path)
    found = {str(f.relative_to(tmp_path)): f.read_text() for f in tmp_path.rglob("*") if f.is_file()}
    assert found == files


def test_a_file_is_no_place_for_a_folder(tmp_path):
    (tmp_path / "m").write_text("a file")
    with pytest.raises(UsageError, match="is no artifact"):
        offramp.save(tiny_model(), tmp_path / "m")


def test_a_head_without_a_name_cannot_be_saved(tmp_path):
    model = tiny_model()
    model.placed = (Exit(1, Linear), *model.placed[1:])
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
