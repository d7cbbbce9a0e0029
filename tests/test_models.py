"""The models in the box."""

import json

import numpy as np
import pytest
from helpers import run_cli
from PIL import Image

import offramp
from offramp.artifact import load_artifact
from offramp.registry import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_it_is_small_whole_and_has_a_card(name):
    folder = MODELS.resolve(name)
    assert (folder / "model.safetensors").stat().st_size <= 8e6
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8e6
    artifact = load_artifact(name)
    assert artifact.policy is not None
    assert artifact.costs is not None
    assert artifact.table is not None
    card = (folder / "card.md").read_text()
    assert "## Where it comes from" in card
    assert artifact.policy.provenance["data"]["split"] == "validation"


@pytest.mark.parametrize("name", MODELS)
def test_calibrating_again_from_its_tables_gives_its_policy(name):
    artifact = load_artifact(name)
    goal = artifact.record["recipe"]["goal"]
    again = offramp.calibrate(artifact.table, artifact.costs, **{k: v for k, v in goal.items() if v is not None})
    assert again.thresholds == pytest.approx(artifact.policy.thresholds)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(offramp.ArtifactError, match=r"no config.json; models in the box: cifar10"):
        offramp.load("cifar10")


def test_predict_needs_no_model_and_list_knows_it(tmp_path, monkeypatch, capsys):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    code, text, _ = run_cli(monkeypatch, capsys, "predict", tmp_path / "photo.jpg", "--json")
    assert code == 0
    (row,) = json.loads(text)
    assert row["label"] in load_artifact("cifar10").model.classes
    code, text, _ = run_cli(monkeypatch, capsys, "list", "models", "--json")
    assert code == 0
    (model,) = json.loads(text)
    assert model["name"] == "cifar10"
    assert 0.5 < model["accuracy"] <= 1


def test_calibrate_does_not_change_the_model_in_the_box(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli(monkeypatch, capsys, "calibrate", "cifar10", "--target-speedup", "1.5")
    assert code == 2
    assert "say with --out" in " ".join(err.split())
    assert not list(tmp_path.iterdir())
    assert run_cli(monkeypatch, capsys, "calibrate", "cifar10", "--target-speedup", "1.5", "--out", "p.json")[0] == 0
    assert (tmp_path / "p.json").exists()
