"""The demo, with a shorter training."""

import json

import pytest
import yaml
from helpers import run_cli

import offramp.recipe

pytestmark = pytest.mark.slow


@pytest.mark.slowest
def test_demo_and_predict(tmp_path, monkeypatch, capsys):
    read = offramp.recipe.read_recipe

    def shorter(path):
        recipe = read(path)
        assert yaml.safe_load(path.read_text())["training"]["epochs"] > 5
        return recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 5})})

    monkeypatch.setattr(offramp.recipe, "read_recipe", shorter)
    out = tmp_path / "demo"
    for _ in range(2):  # a second call does it again
        code, text, _ = run_cli(monkeypatch, capsys, "demo", "--out", out, "--json")
        assert code == 0
        result = json.loads(text)
        assert result["samples"] == 360
        assert set(result["dynamic"]["speedup"]) == {"layers", "macs", "measured"}
        assert result["static"]["value"] > 0.6, "one digit in ten is right by chance, a quarter after one epoch"
    code, text, _ = run_cli(monkeypatch, capsys, "predict", "--model", out / "model", out / "images", "--json")
    assert code == 0
    assert len(json.loads(text)) == 20


def test_a_demo_that_was_stopped_starts_again(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.run" / "checkpoint-00000001").mkdir(parents=True)
    monkeypatch.setattr("offramp.pipeline.train_recipe", lambda *_, **__: (_ for _ in ()).throw(SystemExit(7)))
    assert run_cli(monkeypatch, capsys, "demo", "--out", tmp_path)[0] == 7
    assert not (tmp_path / "model.run").exists()


def test_a_folder_that_is_not_a_demo_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = run_cli(monkeypatch, capsys, "demo", "--out", tmp_path)
    assert code == 2
    assert "is not from a demo" in " ".join(err.split())
