"""From a recipe to a model."""

import pytest
import timm
import torch
from helpers import tiny_vit
from safetensors.torch import save_file

import offramp
from offramp import DataError
from offramp.data import open_splits
from offramp.pipeline import build_model
from offramp.recipe import check_recipe

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
    assert model.data_config["input_size"] == (1, 16, 16)


def test_a_checkpoint_that_is_not_there(digits):
    with pytest.raises(DataError, match="could not be read"):
        build_model(recipe(name="vit_tiny_patch16_224", args=ARGS, checkpoint="nowhere.safetensors"), digits)


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
