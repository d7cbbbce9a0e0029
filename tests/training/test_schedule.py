"""The schedule plateau: each exit by itself, to its own end, and the same after a kill."""

import json

import pytest
import torch
from helpers import squares, tiny_model
from torch import nn

import offramp
from offramp import UsageError
from offramp.training.log import read_log
from offramp.training.schedule import Plateau, by_exit

pytestmark = pytest.mark.slow

SETTINGS = {"schedule": "plateau", "batch_size": 16, "precision": "fp32", "device": "cpu", "optimizer": "adam"}


def plateau(exits=2, rate=1.0):
    heads = nn.ModuleList([nn.Linear(2, 2) for _ in range(exits)])
    groups = [{"params": list(head.parameters()), "exit": k, "lr": rate} for k, head in enumerate(heads)]
    return Plateau(torch.optim.SGD(groups, lr=rate), heads)


def rates(schedule):
    return [group["lr"] for group in schedule.optimizer.param_groups]


def test_each_exit_has_a_rate_of_its_own():
    """By hand: cut after two epochs without gain and again after two more, stopped after five."""
    schedule = plateau()
    seen = []
    for first, second in zip((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True):
        schedule.after_epoch([first, second, 0.9])
        seen.append(rates(schedule))
    assert seen == [[1, 1], [1, 1], [0.6, 1], [0.6, 1], [0.36, 1], [0, 1]]
    assert not schedule.heads[0].training
    assert schedule.heads[1].training
    assert not schedule.over
    for _ in range(5):
        schedule.after_epoch([0.9, 0.6, 0.9])
    assert schedule.over
    assert rates(schedule) == [0, 0], "one that has stopped does not begin again"


def test_a_small_gain_puts_off_the_end_and_not_the_cut_and_the_rate_has_a_floor():
    schedule = plateau(1, 1.5e-7)
    found = []
    for epoch in range(6):
        schedule.after_epoch([0.5 + epoch * 1e-5, 0.9])
        found += rates(schedule)
    assert found == pytest.approx([1.5e-7, 1.5e-7, 1e-7, 1e-7, 1e-7, 1e-7])
    assert not schedule.over
    low = plateau(1, 1e-8)
    for _ in range(3):
        low.after_epoch([0.5, 0.9])
    assert rates(low) == [1e-8], "a rate below the floor is not raised"


def test_groups_hold_every_parameter_once_with_its_exit():
    model = tiny_model(head="lph")
    groups = by_exit(0.3)(model)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.heads.parameters())
    for group in groups:
        assert all((p.dim() > 1) == (group["weight_decay"] == 0.3) for p in group["params"])
        own = {id(p) for p in model.heads[group["exit"]].parameters()}
        assert all(id(p) in own for p in group["params"])


def test_a_run_ends_when_no_exit_gains_and_is_the_same_after_a_kill(tmp_path):
    whole = tiny_model(after=(1, 3))
    samples, validation = squares(64), squares(40, seed=9)
    settings = {**SETTINGS, "epochs": 60, "learning_rate": 0.01, "validation": validation}
    offramp.train(whole, samples, "frozen", folder=tmp_path / "whole", **settings)
    epochs = [line for line in read_log(tmp_path / "whole/log.jsonl") if "validation" in line]
    assert 6 <= len(epochs) < 60
    assert not list(tmp_path.glob("whole/*.new"))

    class Killed(Exception):
        pass

    def killed(step, *_):
        if step == 4 * 4 + 2:
            raise Killed

    cut = tiny_model(after=(1, 3))
    from offramp.training import book

    original = book.Book.after
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book.Book, "after", lambda self, step, *rest: killed(step) or original(self, step, *rest))
        with pytest.raises(Killed):
            offramp.train(cut, samples, "frozen", folder=tmp_path / "cut", **settings)
    again = tiny_model(after=(1, 3))
    offramp.train(again, samples, "frozen", folder=tmp_path / "cut", **settings)
    for name, value in whole.state_dict().items():
        if name.startswith("heads."):
            assert torch.equal(value, again.state_dict()[name]), name
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "cut")]
    assert [json.loads(a).get("validation") for a in logs[0].splitlines()] == [
        json.loads(b).get("validation") for b in logs[1].splitlines()
    ]
    done = tiny_model(after=(1, 3))
    offramp.train(done, samples, "frozen", folder=tmp_path / "whole", **settings)
    assert torch.equal(done.heads[0].classifier.weight, whole.heads[0].classifier.weight), "a finished run is finished"


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"validation": None}, "needs validation data"),
        ({"layer_decay": 0.9}, "has neither layer_decay"),
        ({"head_rate": 2.0}, "nor head_rate"),
        ({"schedule": "step"}, "schedule"),
        ({"objective": "joint"}, "train heads alone"),
    ],
)
def test_what_it_cannot_be_used_for(changed, what, tmp_path):
    settings = {"objective": "frozen", "validation": squares(16), **SETTINGS, **changed}
    with pytest.raises(UsageError, match=what):
        offramp.train(tiny_model(), squares(64), folder=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
