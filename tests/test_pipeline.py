"""From a recipe to a model."""

import json

import pytest
import timm
import torch
from helpers import RECIPE, run_cli, tiny_vit
from safetensors.torch import save_file

import offramp
from offramp import DataError
from offramp.data import open_splits
from offramp.pipeline import build_model, timm_model
from offramp.recipe import BackboneSection, check_recipe

pytestmark = pytest.mark.slow

ARGS = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 32, "depth": 4, "num_heads": 2}


def recipe(**backbone):
    return check_recipe({"name": "x", "data": {"source": "digits"}, "exits": [{"after": 2}], "backbone": backbone})


@pytest.fixture(scope="module")
def digits():
    return open_splits("digits")


@pytest.fixture
def trained():
    torch.manual_seed(3)
    return tiny_vit(10).eval()


def same(model, timm_model):
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        return torch.equal(model.eval()(x)[-1], timm_model(x))


def test_a_local_checkpoint_through_timms_own_loader(tmp_path, trained, digits):
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    model = build_model(
        recipe(name="vit_tiny_patch16_224", args=ARGS, checkpoint=tmp_path / "weights.safetensors"), digits
    )
    assert same(model, trained)
    assert model.input.input_size == (1, 16, 16)


def test_a_checkpoint_that_is_not_there(digits):
    with pytest.raises(DataError, match="could not be read"):
        build_model(recipe(name="vit_tiny_patch16_224", args=ARGS, checkpoint="nowhere.safetensors"), digits)


SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 2}
FAMILIES = [
    ("vit_tiny_patch16_224", SMALL, ["head"]),
    ("deit_tiny_distilled_patch16_224", SMALL, ["head", "head_dist"]),
    ("swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)}, ["head.fc"]),
    ("convnext_atto", {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}, ["head.fc"]),
    ("resnet18", {"in_chans": 1}, ["fc"]),
    ("tf_efficientnet_b0", {}, ["classifier"]),  # its published weights have a class more than it
]


def read(file, name, args, outputs):
    return timm_model(BackboneSection(name=name, args=args, checkpoint=file), outputs)


@pytest.mark.parametrize(("name", "args", "classifiers"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_a_checkpoint_with_other_classes_gives_all_but_the_classifier(tmp_path, caplog, name, args, classifiers):
    source, file = timm.create_model(name, num_classes=7, **args).state_dict(), tmp_path / "weights.safetensors"
    save_file(source, file)
    same = read(file, name, args, 7).state_dict()
    assert all(torch.equal(same[key], value) for key, value in source.items())
    said = r"^the checkpoint weights.safetensors has 7 classes, this model 3: its classifier starts anew$"
    with pytest.warns(UserWarning, match=said):
        model = read(file, name, args, 3)
    own = model.state_dict()
    fresh = {key for key, value in source.items() if not torch.equal(own[key], value)}
    assert fresh == {f"{classifier}.{part}" for classifier in classifiers for part in ("weight", "bias")}
    assert all(len(own[key]) == 3 for key in fresh)
    assert model.num_classes == 3
    assert not caplog.records


def test_a_checkpoint_without_a_classifier(tmp_path):
    save_file(timm.create_model("resnet18", num_classes=0).state_dict(), tmp_path / "weights.safetensors")
    with pytest.warns(UserWarning, match="has no classifier, this model 3: its classifier starts anew"):
        model = read(tmp_path / "weights.safetensors", "resnet18", {}, 3)
    assert model.fc.weight.shape == (3, 512)


def test_a_checkpoint_for_other_images_is_fitted_as_timm_fits_its_own(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=7, **SMALL)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth")
    args = {**SMALL, "img_size": 96, "in_chans": 1}
    model = read(tmp_path / "weights.pth", "vit_tiny_patch16_224", args, 7)
    assert model.pos_embed.shape == (1, 37, 32)
    assert torch.allclose(model.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(1, keepdim=True), atol=1e-5)
    assert torch.equal(model.head.weight, source.head.weight)
    assert model.pretrained_cfg["input_size"] == (1, 96, 96)


def test_a_checkpoint_in_a_familys_first_form(tmp_path):
    name, args, _ = FAMILIES[2]
    source = timm.create_model(name, num_classes=7, **args).state_dict()
    old = {key.replace("layers.1.down", "layers.0.down").replace("head.fc.", "head."): source[key] for key in source}
    torch.save({"model": old}, tmp_path / "weights.pth")
    same = read(tmp_path / "weights.pth", name, args, 7).state_dict()
    assert all(torch.equal(same[key], value) for key, value in source.items())
    with pytest.warns(UserWarning, match="has 7 classes, this model 3"):
        model = read(tmp_path / "weights.pth", name, args, 3)
    assert torch.equal(model.layers[1].downsample.norm.weight, source["layers.1.downsample.norm.weight"])


@pytest.mark.parametrize("outputs", [7, 3])
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_tiny_patch16_224", {**SMALL, "depth": 3}),
        ("vit_tiny_patch16_224", {**SMALL, "depth": 1}),
        ("vit_tiny_patch16_224", {**SMALL, "embed_dim": 64}),
        ("deit_tiny_distilled_patch16_224", SMALL),
        ("resnet18", {}),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_in_one_sentence(tmp_path, name, args, outputs):
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=7, **SMALL).state_dict(), file)
    with pytest.raises(DataError, match=f"^the weights in {file} do not fit {name}: ") as caught:
        read(file, name, args, outputs)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(file)) + 300


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 cut", "a list", "a pickle"])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_checkpoint_that_is_damaged_or_more_than_tensors(tmp_path, content, ending):
    file = tmp_path / f"weights.{ending}"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save([1, 2] if content == "a list" else timm.create_model("vit_tiny_patch16_224", **SMALL), file)
    with pytest.raises(DataError, match=f"^the weights in {file} could not be read: ") as caught:
        read(file, "vit_tiny_patch16_224", SMALL, 7)
    assert "\n" not in str(caught.value)


def test_the_command_says_that_classifiers_start_anew(tmp_path, monkeypatch, capsys):
    save_file(tiny_vit(10).state_dict(), tmp_path / "same.safetensors")
    save_file(tiny_vit(7).state_dict(), tmp_path / "other.safetensors")
    backbone = {"name": "vit_tiny_patch16_224", "args": ARGS, "checkpoint": str(tmp_path / "other.safetensors")}
    plan = {
        **RECIPE,
        "backbone": backbone,
        "teacher": {**backbone, "checkpoint": str(tmp_path / "other.safetensors")},
        "training": {"epochs": 0},
        "goal": {"max_drop": 1.0},
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    code, _, err = run_cli(monkeypatch, capsys, "train", tmp_path / "plan.yaml", "--out", tmp_path / "m")
    said = "offramp: the checkpoint other.safetensors has 7 classes, this model 10: its classifier starts anew"
    assert code == 0, err
    assert err.splitlines().count(said) == 2
    plan["backbone"] = {**backbone, "checkpoint": str(tmp_path / "same.safetensors")}
    del plan["teacher"]
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    code, _, err = run_cli(monkeypatch, capsys, "train", tmp_path / "plan.yaml", "--out", tmp_path / "n")
    assert code == 0, err
    assert "anew" not in err


def test_a_model_saved_for_the_hub_from_a_local_folder(tmp_path, trained, digits):
    timm.models.save_for_hf(trained, tmp_path / "hub", model_args=ARGS, safe_serialization=True)
    model = build_model(recipe(name=f"local-dir:{tmp_path / 'hub'}", pretrained=True), digits)
    assert same(model, trained)
    offramp.save(model, tmp_path / "m")
    assert same(offramp.load(tmp_path / "m")[0], trained)


def test_numbers_get_one_output(digits):
    counting = check_recipe(
        {
            "name": "x",
            "data": {"source": "digits"},
            "exits": [{"after": 2}],
            "backbone": {"name": "vit_tiny_patch16_224", "args": ARGS},
            "task": "counting",
        }
    )
    model = build_model(counting, digits)
    assert model.num_outputs == 1
    assert model.classes is None


def test_a_teacher_mixing_averaging_and_a_curriculum_by_recipe(tmp_path, digits):
    from offramp.errors import UsageError
    from offramp.pipeline import train_recipe

    common = {
        "data": {"source": "digits"},
        "backbone": {"name": "vit_tiny_patch16_224", "args": ARGS},
        "exits": [{"after": 2}],
    }
    training = {"epochs": 1, "batch_size": 64, "precision": "fp32"}
    first = check_recipe({"name": "teacher", **common, "training": training})
    train_recipe(first, tmp_path / "teacher", "cpu")
    second = check_recipe(
        {
            "name": "student",
            **common,
            "training": {**training, "epochs": 2, "mixing": {"cutmix_alpha": 1.0}, "label_smoothing": 0.1, "ema": 0.9},
            "teacher": {"artifact": str(tmp_path / "teacher"), "weight": 0.5, "temperature": 2.0},
            "curriculum": {"start": 0.5},
            "objective": {"name": "mixed"},
            "storage": "fp16",
        }
    )
    artifact = train_recipe(second, tmp_path / "student", "cpu")
    assert sorted(f.name for f in (tmp_path / "student.run").iterdir()) == ["run.json", "stage-1", "stage-2"]
    assert all(torch.equal(p, p.half().float()) for p in artifact.model.parameters())
    with pytest.raises(UsageError, match=r"teacher: give exactly one of name and artifact"):
        check_recipe({"name": "x", **common, "teacher": {"weight": 0.5}})
    with pytest.raises(UsageError, match=r"teacher.name: there is no timm model 'vit_tini'"):
        check_recipe({"name": "x", **common, "teacher": {"name": "vit_tini"}})


def test_the_record_holds_no_path_of_the_data(tmp_path, digits):
    import numpy as np

    from offramp.pipeline import train_recipe

    pixels = np.stack([np.asarray(digits.train.read(i)) for i in range(200)])
    targets = digits.train.targets[:200]
    np.savez(tmp_path / "few.npz", x_train=pixels, y_train=targets, x_test=pixels, y_test=targets)
    few = check_recipe(
        {
            "name": "x",
            "data": {"source": str(tmp_path / "few.npz"), "validation": 50},
            "backbone": {"name": "vit_tiny_patch16_224", "args": {**ARGS, "num_classes": 10}},
            "exits": [{"after": 2}],
            "training": {"epochs": 0},
            "task": "classification",
        }
    )
    artifact = train_recipe(few, tmp_path / "m", "cpu")
    assert artifact.record["recipe"]["data"]["source"] == "few.npz"
    assert str(tmp_path) not in (tmp_path / "m" / "card.md").read_text()
