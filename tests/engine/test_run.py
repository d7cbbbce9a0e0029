"""Running with a policy."""

import pytest
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp import DataError, UsageError
from offramp.policies.threshold import Threshold


def test_samples_that_left_are_computed_no_more():
    model = tiny_model()
    x = images(100)
    policy = Threshold(spread_thresholds(model, x))
    sizes = []
    hooks = [b.register_forward_hook(lambda _, args, __: sizes.append(len(args[0]))) for b in model.backbone.steps]
    trace = offramp.run(model, x, policy)
    for hook in hooks:
        hook.remove()
    inside = [int((trace.exit >= k).sum()) for k in range(4)]
    assert sizes == inside
    assert 100 > sizes[1] > sizes[3] > 0


def test_nothing_runs_after_the_last_sample_left():
    model = tiny_model()
    calls = []
    model.backbone.steps[1].register_forward_hook(lambda *_: calls.append(1))
    assert offramp.run(model, images(8), Threshold((0.0, 0.0, 0.0))).exit.tolist() == [0] * 8
    assert not calls


def test_without_exits_it_is_the_timm_model():
    model = tiny_model()
    x = images(5)
    trace = offramp.run(model, x, Threshold((None, None, None)))
    with torch.no_grad():
        assert torch.equal(trace.output, model.backbone.model(x))
    assert trace.exit.tolist() == [3] * 5


def test_a_model_in_training_mode_answers_as_in_evaluation_and_keeps_its_mode():
    model = tiny_model(drop_rate=0.5, proj_drop_rate=0.5)
    x = images(5)
    expected = offramp.run(model, x, Threshold((0.0, None, None))).output
    model.train()
    model.heads.eval()
    assert torch.equal(offramp.run(model, x, Threshold((0.0, None, None))).output, expected)
    assert model.training
    assert not model.heads.training
    assert model.backbone.training


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 0, 3, 3), (1, 0, -1, -1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_are_refused(value, place, dtype):
    x = images(2).to(dtype)
    x[place] = value
    with pytest.raises(DataError, match="not finite"):
        offramp.run(tiny_model(), x, Threshold((0.5,) * 3))


def test_a_wrong_shape_and_a_wrong_policy():
    with pytest.raises(DataError, match="the model takes images of shape"):
        offramp.run(tiny_model(), torch.zeros(1, 3, 16, 16), Threshold((0.5,) * 3))
    with pytest.raises(UsageError, match="the model has 3 early exits"):
        offramp.run(tiny_model(), images(1), Threshold((0.5,) * 4))
