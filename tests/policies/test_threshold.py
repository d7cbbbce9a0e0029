"""The threshold rule."""

import pytest
import torch

from offramp import UsageError
from offramp.policies.threshold import Threshold
from offramp.types import Evidence


def evidence(scores, exit=0):
    return Evidence(exit, torch.zeros(len(scores), 2), torch.tensor(scores))


def test_reaching_the_threshold_is_enough():
    leave, state, output = Threshold((0.5, None)).step((), evidence([0.4, 0.5, 0.6]))
    assert leave.tolist() == [False, True, True]
    assert state == ()
    assert output is None


def test_heads_are_the_exits_that_are_on():
    assert Threshold((None, 0.0, 1.0, None)).heads == (1, 2)


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
def test_thresholds_outside_0_1_are_refused(value):
    with pytest.raises(UsageError, match="thresholds lie between 0 and 1"):
        Threshold((0.5, value))


def test_an_exit_that_is_off_is_never_asked():
    with pytest.raises(ValueError, match="switched off"):
        Threshold((None,)).step((), evidence([0.5]))
