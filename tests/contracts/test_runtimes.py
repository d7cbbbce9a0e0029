"""Every runtime of the table computes what PyTorch computes, in each precision that it has."""

import copy
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp.engine import TorchSegments, open_runtime
from offramp.errors import UsageError
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold
from offramp.policies.vote import Vote
from offramp.registry import RUNTIMES

pytestmark = pytest.mark.slow

TOLERANCE = {"fp32": 1e-4, "bf16": 0.3}
"""Of outputs with a standard deviation of about 2."""


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", RUNTIMES)
def test_runtime(name, precision, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # the compiler is not ours to test
    if precision not in RUNTIMES.resolve(name).precisions:
        with pytest.raises(UsageError, match="computes in fp32, not in 'bf16'"):
            open_runtime(name, precision)
        return
    runtime = open_runtime(name, precision, threads=1)
    assert (runtime.name, runtime.precision, runtime.threads) == (name, precision, 1)
    model = tiny_model(after=(2,), seed=2)
    x = images(60)
    (threshold,) = spread_thresholds(model, x)
    policy, other = Threshold((threshold,)), Threshold((threshold - 0.1,))
    session, static = runtime.dynamic(model, policy), runtime.static(model.backbone.model, x[:2])
    with torch.no_grad():
        outputs = torch.stack(model(x))
    for rule, given in ((policy, None), (other, other)):
        found, expected = session(x, given), offramp.run(model, x, rule)
        differs = (found.exit != expected.exit).sum()
        assert differs <= (0 if precision == "fp32" else 6), "only near the threshold"
        own = outputs[found.exit, torch.arange(60)]
        assert (found.output - own).abs().max() < TOLERANCE[precision]
        assert found.score.dtype == found.output.dtype == torch.float32
    for n in (1, 5):
        assert (static(x[:n]) - outputs[-1, :n]).abs().max() < TOLERANCE[precision]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_session_takes_another_policy_at_each_call(name):
    """It keeps what it read of the last policy: not for another one, another batch, or one that it does not take."""
    model = tiny_model(after=(1, 2), seed=2)
    x = images(12)
    first, second = spread_thresholds(model, x)
    rules = [Threshold((first, second)), Threshold((None, second)), Threshold((first, None))]
    session = open_runtime(name, threads=1).dynamic(model, rules[0])
    unsound = copy.copy(rules[0])  # past its own checks
    object.__setattr__(unsound, "thresholds", (math.nan,) * 2)
    for i, n in ((0, 12), (0, 5), (1, 5), (0, 12), (2, 1), (2, 12), (1, 3)):
        expected = offramp.run(model, x[:n], rules[i]).exit.tolist()
        assert session(x[:n], rules[i]).exit.tolist() == expected
        with pytest.raises(UsageError, match="export the model with it"):
            session(x[:n], Vote(2, (0, 1)))
        with pytest.raises(UsageError, match=r"not a number \(NaN\)"):
            session(x[:n], unsound)
        assert session(x[:n], rules[i]).exit.tolist() == expected


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_session_takes_other_exits_at_each_call(name):
    model, x = tiny_model(after=(1, 2), seed=2), images(12)
    session = open_runtime(name, threads=1).dynamic(model, Forced((0, 1, 2) * 4, 2))
    for exits in ((0, 1, 2) * 4, (2,) * 5, (1, 0) * 6, (2,) * 3):
        for _ in range(2):
            assert session(x[: len(exits)], Forced(exits, 2)).exit.tolist() == list(exits)


SIGNALS = """
import os, signal
from offramp.engine import open_runtime
from helpers import images, tiny_model

told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
network, x = tiny_model().backbone.model, images(2)

def opened():
    runtime = open_runtime("openvino")
    runtime.static(network, x)
    return runtime

runtimes = [opened() for _ in range(3)]
while runtimes:
    del runtimes[0]
    os.kill(os.getpid(), signal.SIGUSR1)
print(len(told))
"""


def test_runtimes_may_be_freed_in_any_order_and_signals_still_arrive():
    """torch's loaders and faulthandler rely on them; each of OpenVINO's cores has a stack for signals of its own."""
    here = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, cwd=here)
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr


def test_stages():
    model, x = tiny_model(), images(6)
    segments = TorchSegments(model)
    with torch.inference_mode():
        expected = model(x)
        h = segments.enter(0, x)
        for k in range(len(segments.chain.after) - 1):
            h = segments.step(k, h)
            assert torch.allclose(segments.head(k, h), expected[k], atol=1e-5)
        h = segments.step(len(segments.chain.after) - 1, h)
        assert torch.allclose(segments.final(h), expected[-1], atol=1e-5)
