"""Every runtime of the table computes what PyTorch computes, in each precision that it has."""

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
from offramp.policies.threshold import Threshold
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
