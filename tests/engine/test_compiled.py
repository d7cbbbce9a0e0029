"""The compiled runtime with torch's own compiler; elsewhere tests replace it, since it takes long."""

import shutil

import pytest
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp.engine import open_runtime
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slowest


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs a C++ compiler, g++, and there is none")
def test_pieces_that_were_really_compiled_leave_and_answer_as_eager_ones(monkeypatch):
    model, x = tiny_model(after=(2,), seed=2), images(60)
    policy = Threshold(spread_thresholds(model, x))
    runtime = open_runtime("torch-compiled")
    compiled = []
    from torch._inductor import compile_fx as inductor

    compile_fx = inductor.compile_fx

    def counted(*arguments, **options):
        compiled.append(1)
        return compile_fx(*arguments, **options)

    monkeypatch.setattr(inductor, "compile_fx", counted)
    session = runtime.dynamic(model, policy)
    expected = offramp.run(model, x, policy)
    assert 0 < (expected.exit == 0).sum() < 60
    found = session(x)
    assert torch.equal(found.exit, expected.exit)
    assert torch.allclose(found.output, expected.output, atol=1e-4)
    assert len(compiled) >= 4, "two segments, a head and the final exit"
    before = len(compiled)
    for n in (7, 33):  # other sizes of the batch need no new code
        rows = session(x[:n])
        assert torch.equal(rows.exit, expected.exit[:n])
    assert len(compiled) <= before + 1
