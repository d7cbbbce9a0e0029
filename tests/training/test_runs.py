"""A folder holds one run: the same call goes on with it, another one is refused and changes nothing."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import squares, tiny_model, tiny_vit

import offramp
from offramp import UsageError
from offramp._files import read_json
from offramp.training.objectives.joint import Joint
from offramp.training.objectives.mixed import Mixed
from offramp.training.same_run import plain

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SETTINGS = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu", "learning_rate": 1e-3}


def teacher(**settings):
    torch.manual_seed(7)
    return offramp.Teacher(tiny_vit(), **settings)


def fit(folder, model=None, samples=None, **settings):
    model = tiny_model() if model is None else model
    offramp.train(model, squares(64) if samples is None else samples, folder=folder, **{**SETTINGS, **settings})
    return model


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


OTHER = {
    "epochs": 3,
    "batch_size": 32,
    "optimizer": "sgd",
    "learning_rate": 2e-3,
    "head_rate": 2.0,
    "weight_decay": 0.1,
    "warmup_epochs": 0.5,
    "clip": None,
    "precision": "bf16",
    "augment": {"hflip": 0.5},
    "mixing": {"mixup_alpha": 0.4},
    "mixing_epochs": 1,
    "label_smoothing": 0.1,
    "ema": 0.9,
    "seed": 1,
    "origin": {"checkpoint": "another"},
    "objective": "alternating",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = fit(folder, teacher=teacher(), curriculum=offramp.Curriculum(0.5))
    return folder, model


def refused(run, differs, **changed):
    folder, _ = run
    before = contents(folder)
    own = {"teacher": teacher(), "curriculum": offramp.Curriculum(0.5)}
    with pytest.raises(UsageError, match=rf"holds another run, with .*{differs}") as caught:
        fit(folder, **{**own, **changed})
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


@pytest.mark.parametrize("name", OTHER)
def test_a_call_with_another_argument_is_refused_and_named(run, name):
    refused(run, name, **{name: OTHER[name]})


def test_both_values_are_named(run):
    refused(run, r"learning_rate 0\.001, not 0\.002", learning_rate=2e-3)
    refused(run, "epochs 2, not 5", epochs=5)


@pytest.mark.parametrize(
    ("differs", "changed"),
    [
        ("teacher", lambda: {"teacher": None, "curriculum": None}),
        ("teacher.weight", lambda: {"teacher": teacher(weight=0.9)}),
        ("teacher.model.weights", lambda: {"teacher": offramp.Teacher(tiny_vit())}),
        ("curriculum.start", lambda: {"curriculum": offramp.Curriculum(0.9)}),
        ("objective.class", lambda: {"objective": Mixed()}),
        ("objective.weighting", lambda: {"objective": Joint("depth")}),
        ("data.samples", lambda: {"samples": squares(80)}),
        ("data.fingerprint", lambda: {"samples": squares(64, seed=5)}),
        ("model.exits", lambda: {"model": tiny_model(after=(1, 2))}),
        ("model.exits", lambda: {"model": tiny_model(head="mlp")}),
        ("model.arguments.drop_rate", lambda: {"model": tiny_model(drop_rate=0.1)}),
    ],
)
def test_another_part_is_refused_and_named(run, differs, changed):
    torch.manual_seed(99)
    refused(run, differs, **changed())


def test_images_prepared_otherwise_are_another_run(run):
    model = tiny_model()
    model.input = replace(model.input, mean=(0.4,))
    refused(run, "model.input.mean", model=model)


def test_what_does_not_change_the_result_does_not_count(run):
    folder, model = run
    before = contents(folder)
    settings = {"workers": 1, "checkpoint_seconds": 0.0, "progress": True, "validation": squares(16)}
    again = fit(folder, tiny_model(seed=4), teacher=teacher(), curriculum=offramp.Curriculum(0.5), **settings)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert contents(folder) == before


def test_the_trained_model_may_be_given_again(run):
    folder, model = run
    weights = [p.clone() for p in model.parameters()]
    fit(folder, model, teacher=teacher(), curriculum=offramp.Curriculum(0.5))
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_heads_on_another_frozen_backbone_are_another_run(tmp_path):
    fit(tmp_path, objective="frozen")
    fit(tmp_path, objective="frozen")
    with pytest.raises(UsageError, match="with weights that are not trained"):
        fit(tmp_path, tiny_model(seed=3), objective="frozen")


def test_an_objective_and_its_name_are_the_same(tmp_path):
    fit(tmp_path, objective=Joint())
    fit(tmp_path, objective="joint")
    with pytest.raises(UsageError, match="objective"):
        fit(tmp_path, objective=Joint(lambda after: torch.ones(len(after))))


def test_checkpoints_that_do_not_say_what_they_are(tmp_path):
    fit(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(UsageError, match=r"holds checkpoints without run\.json"):
        fit(tmp_path)


def test_a_record_that_is_damaged(tmp_path):
    fit(tmp_path)
    (tmp_path / "run.json").write_text('{"epochs": ')
    with pytest.raises(offramp.ArtifactError, match="no JSON that can be read"):
        fit(tmp_path)


def test_stopped_before_the_first_checkpoint_it_begins_anew(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("offramp.training.loop.StageRunner.run", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "a")
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["run.json"]
    with pytest.raises(UsageError, match="seed 0, not 1"):
        fit(tmp_path / "a", seed=1)
    one, other = fit(tmp_path / "a"), fit(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError, match="no step can be made"):
        fit(tmp_path / "run", batch_size=1000)
    assert not (tmp_path / "run").exists()


@pytest.mark.slowest
def test_two_processes_keep_one_record_and_refuse_together(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launch, str(HERE / "run_processes.py"), str(tmp_path), "joint"]
    subprocess.run(command, env=environment, check=True, timeout=300)
    record = read_json(tmp_path / "joint" / "run.json")
    assert record["seed"] == 0
    changed = {**environment, "OFFRAMP_TEST_SEED": "1"}
    done = subprocess.run(command, env=changed, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "seed 0, not 1" in done.stderr
    assert read_json(tmp_path / "joint" / "run.json") == record


def test_anything_becomes_plain_values():
    found = plain({"a": (1, Path("x")), 3: np.float32(0.5), "f": squares, "s": squares(8)})
    assert found["a"] == [1, "x"]
    assert found["3"] == 0.5
    assert found["f"] == "offramp.testing._small:squares"
    assert found["s"]["samples"] == 8
