"""Anytime answers."""

import torch
from helpers import images, tiny_model

import offramp


def test_answers_are_the_outputs_exit_by_exit():
    model = tiny_model()
    x = images(3)
    answers = list(offramp.anytime(model, x))
    with torch.no_grad():
        assert all(torch.equal(a.output, o) for a, o in zip(answers, model(x), strict=True))
    assert [a.exit.tolist() for a in answers] == [[k] * 3 for k in range(4)]


def test_nothing_runs_that_was_not_asked_for():
    model = tiny_model().train()
    calls = []
    for i, block in enumerate(model.backbone.steps):
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
    answers = offramp.anytime(model, images(2))
    next(answers)
    assert calls == [0]
    assert model.training, "the mode is the caller's again between two answers"
    next(answers)
    assert calls == [0, 1]
