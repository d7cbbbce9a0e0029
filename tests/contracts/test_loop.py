"""One loop: with a clock that never strikes it is ``run``, and cohorts that were joined answer as apart."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from helpers import images, inputs, model_of, tiny_vit
from policy_examples import examples

import offramp
from offramp import UsageError
from offramp._batches import take
from offramp.engine import Cohort, RuntimeInPieces, TorchSegments, advance, arrive, enter, open_runtime
from offramp.registry import POLICIES, TASKS
from offramp.testing._policies import MARGIN

pytestmark = pytest.mark.slow

N = 60
RUNTIMES = ("torch", "torch-compiled")
PRECISIONS = ("fp32", "bf16")


@pytest.fixture(scope="module", params=[*TASKS, "pair"])
def setting(request):
    model = model_of(request.param)
    x = inputs(model, N)
    return model, x, offramp.profile(model, repeats=1), examples(model, x)


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def same(a, b):
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("output", "exit", "score"))


def test_every_policy_of_every_task_has_an_example(setting):
    assert setting[3].keys() == POLICIES.keys()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_without_a_limit_it_is_run_bit_for_bit(setting, runtime, precision, name):
    model, x, costs, policies = setting
    opened = open_runtime(runtime, precision)
    segments = opened.segments(model)
    for make in policies[name]:
        policy = make(torch.arange(N))
        trace = opened.dynamic(model, policy)(x)
        assert trace.output.dtype == trace.score.dtype == torch.float32
        for answer in ("cache", "geometric"):
            assert same(offramp.run_until(model, x, math.inf, costs, policy, answer, segments), trace)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_policy_and_limit_the_final_exit_answers(setting, precision):
    model, x, costs, _ = setting
    opened = open_runtime("torch", precision)
    trace = offramp.run_until(model, x, math.inf, costs, segments=opened.segments(model))
    assert trace.exit.tolist() == [3] * N
    whole = model.backbone.model if model.final_exit is None else model.static
    assert torch.equal(trace.output, model.task.keep(opened.static(whole, x)(x)))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", POLICIES)
def test_a_limit_of_nothing_answers_with_the_first_exit(setting, name, precision):
    model, x, costs, policies = setting
    for make in policies[name]:
        policy = make(torch.arange(N))
        segments = open_runtime("torch", precision).segments(model)
        trace = offramp.run_until(model, x, 0.0, costs, policy, segments=segments)
        assert trace.exit.tolist() == [0] * N
        assert torch.isfinite(trace.output).all()


@pytest.mark.parametrize("name", POLICIES)
def test_cohorts_joined_answer_as_apart(setting, name):
    model, x, _, policies = setting
    segments, task = TorchSegments(model), model.task
    for make in policies[name]:
        policy = make(torch.arange(N))
        expected = offramp.run(model, x, policy)
        for joined_before in range(1, 4):
            found, order = walk(segments, policy, make, task, x, joined_before)
            assert sorted(order) == list(range(N)), "everybody answers once"
            assert torch.equal(found.exit, expected.exit)
            assert torch.allclose(found.output, expected.output, atol=100 * MARGIN)
            assert torch.allclose(found.score, expected.score, atol=100 * MARGIN)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_in_pieces_as_in_one(setting, runtime, precision, name):
    model, x, _, policies = setting
    whole = open_runtime(runtime, precision)
    near = 100 * MARGIN if precision == "fp32" else 0.1
    for piece in (1, 7, N, "auto"):
        computes = RuntimeInPieces(whole, piece)
        for make in policies[name]:
            policy = make(torch.arange(N))
            expected = whole.dynamic(model, policy)(x)
            found = offramp.run(model, x, policy, computes)
            agree = found.exit == expected.exit
            assert agree.all() if precision == "fp32" else (~agree).sum() <= 3, "bf16: only near a threshold"
            assert torch.allclose(found.output[agree], expected.output[agree], atol=near)
            assert torch.allclose(found.score[agree], expected.score[agree], atol=near)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_static_network_in_pieces_as_in_one(setting, runtime, precision):
    model, x, _, _ = setting
    whole = open_runtime(runtime, precision)
    network = whole.static(model.static, x)
    near = 100 * MARGIN if precision == "fp32" else 0.1
    for piece in (1, 7, N, "auto"):
        found = RuntimeInPieces(whole, piece).static(model.static, x)(x)
        assert torch.allclose(found, network(x), atol=near)


def walk(segments, policy, make, task, x, joined_before):
    """Three batches apart up to a segment, there one behind the other in another order, and on together."""
    parts = [torch.arange(0, 7), torch.arange(7, 8), torch.arange(8, N)]
    left, found = [], {}

    def on(k, cohort, rule):
        stays, answered = advance(segments, rule, task, k, cohort)
        if answered is not None:
            gone = ~torch.isin(answered.rows, stays.rows)
            left.extend(answered.rows[gone].tolist())
            for i in gone.nonzero()[:, 0].tolist():
                found[int(answered.rows[i])] = (answered.output[i], k, answered.score[i])
        return stays

    cohorts = []
    with torch.inference_mode():
        for rows in parts:
            rule = make(rows)
            entered = enter(segments, arrive(segments, take(x, rows), rule), 0)
            cohort = Cohort(rows, entered.h, entered.state, entered.previous)
            for k in range(joined_before):
                cohort = on(k, cohort, rule) if len(cohort) else cohort
            cohorts.append(cohort)
        inside = [c for c in reversed(cohorts) if len(c)]
        for k in range(joined_before, len(segments.chain.after)):
            inside = [c for c in [on(k, Cohort.cat(inside), policy)] if len(c)] if inside else []
    output = torch.stack([found[i][0] for i in range(N)])
    exit = torch.tensor([found[i][1] for i in range(N)])
    score = torch.stack([found[i][2] for i in range(N)])
    return offramp.Trace(output, exit, score), left


@pytest.mark.parametrize("limits", [[1.0] * 3, torch.ones(N, 1), [], [math.nan] * N])
def test_limits_that_are_not_one_a_sample_are_refused(setting, limits):
    model, x, costs, _ = setting
    with pytest.raises(UsageError, match="limit"):
        offramp.run_until(model, x, limits, costs)


def test_a_bf16_backbone_gets_bf16_heads_and_every_road_takes_it():
    model = offramp.attach(tiny_vit().bfloat16(), [offramp.Exit(1), offramp.Exit(2, "mlp")]).eval()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    x = images(9)
    table = offramp.tabulate(model, [(x, torch.zeros(9))])
    assert table.provenance["precision"] == "bf16"
    policy = offramp.calibrate(table, offramp.profile(model, repeats=1), target_speedup=1.0)
    trace = offramp.run(model, x, policy)
    assert trace.output.dtype == torch.float32
    assert torch.equal(trace.exit, offramp.replay(policy, table).exit)
    assert len(list(offramp.anytime(model, x))) == 3
