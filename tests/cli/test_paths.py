"""A recipe with tails and a router, verb by verb: trained, calibrated, evaluated, exported, asked."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers import RECIPE

import offramp
from offramp import Routed
from offramp.artifact.saved import CARD
from offramp.data import loader

pytestmark = [pytest.mark.slow, pytest.mark.slowest]


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    """A model of two tails with a predictor, trained as MT-ViT is."""
    from offramp.pipeline import train_recipe
    from offramp.recipe import read_recipe

    folder = tmp_path_factory.mktemp("routed")
    recipe = {
        **RECIPE,
        "tails": [2, 4],
        "router": {"name": "cnn", "options": {"widths": [8, 16]}},
        "objective": {"name": "mt-vit", "options": {"target": 0.5, "decay": 0.99}},
        "goal": {"target_speedup": 1.4},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train_recipe(read_recipe(folder / "recipe.yaml"), folder / "model", device="cpu")
    return folder / "model"


@pytest.fixture(scope="module")
def policies(routed, tmp_path_factory):
    """The model's policy, and one that asks the router."""
    artifact = offramp.artifact.load_artifact(routed)
    file = tmp_path_factory.mktemp("policy") / "routed.json"
    inner = artifact.policy.inner if isinstance(artifact.policy, Routed) else artifact.policy
    said = artifact.table.route
    middle = float((said[:, 0] - said[:, 1]).median())
    offramp.policies.save_policy(Routed(inner, (0.0, middle)), file)
    return file


@pytest.fixture(scope="module")
def int8_file(routed, policies, tmp_path_factory):
    """The same as a file in int8."""
    artifact = offramp.artifact.load_artifact(routed)
    samples = offramp.pipeline.open_for(artifact, "digits").train
    batches = [x for x, _ in loader(samples, artifact.model.input, 64)][:3]
    path = tmp_path_factory.mktemp("int8") / "routed.onnx"
    offramp.export_onnx(artifact.model, path, offramp.policies.load_policy(policies), int8=batches)
    return path


def test_the_card_says_what_paths_there_are(routed):
    card = (routed / CARD).read_text()
    assert "- path 0: tail (grid 2)" in card
    assert "- path 1: the backbone as it is" in card
    assert "- router: cnn (widths [8, 16])" in card


def test_evaluate_names_the_path_of_each_exit(routed, policies, cli):
    code, out, err = cli("evaluate", routed, "digits", "--policy", policies, "--device", "cpu", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [(e["path"], e["after"]) for e in result["exits"]] == [(p, a) for p in (0, 1) for a in (1, 2, 4)]
    assert result["dynamic"]["value"] > 0.5
    code, out, _ = cli("evaluate", routed, "digits", "--device", "cpu")
    assert code == 0
    assert "4 of path 0" in out


@pytest.mark.parametrize("goal", [("--max-drop", "3"), ("--target-speedup", "1.3"), ("--risk", "0.2")])
def test_calibrate_shows_where_samples_enter(routed, cli, tmp_path, goal):
    code, out, err = cli("calibrate", routed, *goal, "--out", tmp_path / "p.json", "--plot", tmp_path / "p.png")
    assert code == 0, err
    assert "2 of path 1" in out
    policy = offramp.policies.load_policy(tmp_path / "p.json")
    assert isinstance(policy, Routed) == ("the router is asked" in out)


def test_a_routed_policy_is_shown_with_its_bias(routed, cli, monkeypatch, capsys):
    """Whatever the search prefers here: the lines for a routed policy are printed."""
    from offramp.cli.calibrate import _show

    artifact = offramp.artifact.load_artifact(routed)
    policy = artifact.policy.inner if isinstance(artifact.policy, Routed) else artifact.policy
    _show(Routed(policy, (0.0, 0.25)), artifact.model.chain, artifact.model.task, "macs")
    assert "the router is asked where to enter: " in capsys.readouterr().out


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_file_answers_as_the_model(routed, policies, cli, photos, tmp_path, runtime):
    path = tmp_path / "routed.onnx"
    code, _, err = cli("export", routed, path, "--policy", policies)
    assert code == 0, err
    expected = json.loads(cli("predict", "-m", routed, "--policy", policies, photos, "--json")[1])
    found = json.loads(cli("predict", "-m", path, photos, "--runtime", runtime, "--json")[1])
    assert [(r["label"], r["exit"], r["path"]) for r in found] == [(r["label"], r["exit"], r["path"]) for r in expected]
    code, out, _ = cli("predict", "-m", path, photos, "--runtime", runtime)
    assert "of path" in out


@pytest.mark.parametrize(
    "goal",
    [("--max-drop", "3"), ("--target-speedup", "1.3"), ("--risk", "0.2"), ("--max-cost", "1GMACs"), ("--measure",)],
    ids=lambda goal: goal[0],
)
def test_a_file_that_asks_its_router_is_calibrated_as_it_is(int8_file, cli, tmp_path, goal):
    """int8 has scores of its own: the file's own table, its own router, its own numbers afterwards."""
    path = Path(shutil.copy(int8_file, tmp_path))
    before = offramp.engine.open_runtime("onnxruntime", threads=1).open(path).file
    options = ("--max-drop", "3", "--unit", "seconds", *goal) if goal == ("--measure",) else goal
    code, _, err = cli("calibrate", path, "digits", "--threads", "1", *options)
    assert code == 0, err
    session = offramp.engine.open_runtime("onnxruntime", threads=1).open(path)
    after = session.file
    assert isinstance(after.policy, Routed)
    assert after.about["costs"]["asks"], "whatever the policy is, the router is in its costs"
    assert after.policy != before.policy
    expected = after.policy.provenance["expected"]
    pixels, _ = offramp.pipeline.file_batches(after, "digits", "validation")
    traces = [session(x) for x, _ in pixels]
    shares = [float(torch.cat([t.exit for t in traces]).eq(k).float().mean()) for k in range(6)]
    assert shares == pytest.approx(expected["exit_shares"]), "the file does what calibration said it would"


def test_bench_forces_shares_of_every_path(routed, cli):
    options = ("--batch", "4", "--images", "8", "--rounds", "1", "--threads", "1")
    code, out, err = cli("bench", routed, "--shares", "0,0.25,0.25,0,0,0.5", *options, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["rows"][0]["exit_shares"] == [0, 0.25, 0.25, 0, 0, 0.5]
    assert result["peak_memory"]["dynamic"]["run_mb"] > 0


def test_seconds_of_several_paths_are_told_apart_or_refused(routed, cli):
    code, _, err = cli("calibrate", routed, "--target-speedup", "1.1", "--unit", "seconds", "--measure")
    assert code in (0, 2)
    assert code == 0 or "path" in err
