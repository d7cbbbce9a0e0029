"""The loop: it learns, logs, resumes, and refuses what cannot be."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import squares, tiny_model
from safetensors.torch import load_file

import offramp
from offramp import DataError, UsageError
from offramp.training.log import read_log

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def fit(folder, model=None, **settings):
    model = tiny_model() if model is None else model
    defaults = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu"}
    offramp.train(model, squares(70), folder=folder, **{**defaults, **settings})
    return model


def test_it_learns_and_logs(tmp_path):
    model = tiny_model()
    offramp.train(
        model,
        squares(256),
        folder=tmp_path,
        validation=squares(64, seed=1),
        epochs=12,
        batch_size=32,
        learning_rate=1e-2,
        precision="bf16",
        augment={"hflip": 0.0, "scale": (0.9, 1.0), "color_jitter": None},
        device="cpu",
    )
    lines = read_log(tmp_path / "log.jsonl")
    validation = [line["validation"]["accuracy"] for line in lines if "validation" in line]
    assert len(validation) == 12
    assert len(validation[-1]) == 4
    assert min(validation[-1][1:]) > 0.9
    rates = [line["lr"] for line in lines if "lr" in line]
    assert max(rates) <= 1e-2
    assert rates[-1] < 1e-3


def test_same_seed_same_result_other_seed_another(tmp_path):
    a, b, c = fit(tmp_path / "a"), fit(tmp_path / "b"), fit(tmp_path / "c", seed=1)
    assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), c.state_dict().values(), strict=True))


def test_a_finished_run_is_not_done_again(tmp_path):
    done = fit(tmp_path)
    again = fit(tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(done.state_dict().values(), again.state_dict().values(), strict=True))
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    def start(folder):
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, str(HERE / "run_to_kill.py"), str(folder)], env=environment)

    whole = start(tmp_path / "whole")
    assert whole.wait(timeout=300) == 0
    steps = json.loads((tmp_path / "whole" / "result.json").read_text())["steps"]
    killed = tmp_path / "killed"
    kill_at = random.SystemRandom().randrange(12, steps - 8)
    process = start(killed)
    while not any(line["step"] >= kill_at for line in read_log(killed / "log.jsonl")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "result.json").exists()
    assert start(killed).wait(timeout=300) == 0
    resumed = json.loads((killed / "result.json").read_text())
    assert 0 < resumed["started_at"] < steps
    a, b = (load_file(tmp_path / name / "end.safetensors") for name in ("whole", "killed"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a), f"killed at step {kill_at}"
    losses = [
        {line["step"]: line["loss"] for line in read_log(tmp_path / name / "log.jsonl") if "loss" in line}
        for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1]


PROCESSES = ("joint", "alternating", "mixed")


@pytest.fixture(scope="module")
def by_processes(tmp_path_factory):
    """Each of the objectives trained by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    # on processors accelerate's own launcher needs MPI for more than one process; torch's does not
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, how in (("one", []), ("two", launch)):
        command = [sys.executable, *how, str(HERE / "run_processes.py"), str(folder / name), *PROCESSES]
        subprocess.run(command, env=environment, check=True, timeout=300)
    return folder


@pytest.mark.slowest
@pytest.mark.parametrize("objective", PROCESSES)
def test_two_processes_end_where_one_does(by_processes, objective):
    folders = [by_processes / name / objective for name in ("one", "two")]
    assert [(folder / "processes").read_text() for folder in folders] == ["1", "2"]
    one, two = (load_file(folder / "end.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    fit(tmp_path)
    with pytest.raises(UsageError, match=r"holds another run, with model\.exits"):
        fit(tmp_path, tiny_model(after=(2,)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "jont"}, "did you mean 'joint'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"batch_size": 100}, "a batch of 100 from 70 samples"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_what_cannot_be(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        fit(tmp_path, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_where_one_was_asked_for(tmp_path):
    with pytest.raises(UsageError, match="torch finds"):
        fit(tmp_path, device="cuda")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.heads[0].classifier.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        fit(tmp_path, model)


def test_a_model_keeps_its_modes_and_attention(tmp_path):
    model = tiny_model()
    before = [getattr(m, "fused_attn", None) for m in model.modules()]
    model.backbone.requires_grad_(False)
    fit(tmp_path, model, objective="frozen", epochs=1)
    assert [getattr(m, "fused_attn", None) for m in model.modules()] == before
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.requires_grad for p in model.heads.parameters())
