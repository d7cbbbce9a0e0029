"""Seconds of a runtime: on a clock of its own that every piece of work moves by what it costs."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import images, tiny_model, tiny_vit

import offramp
from offramp import Exit, Part, Routed
from offramp.bench import profile_file, profile_in
from offramp.engine import open_runtime
from offramp.errors import DataError, UsageError
from offramp.policies.threshold import Threshold
from offramp.policies.vote import Vote
from offramp.registry import RUNTIMES
from offramp.types import PartCosts, Trace

pytestmark = pytest.mark.slowest


class FakeRuntime:
    """Nothing computes; a run takes as long as its segments and heads, and every sample scores 0.5.

    Args:
        segments: seconds of each segment, the one to the final exit last.
        heads: seconds of each head.
        noise: what each run takes longer.
        scores: of each early exit.
    """

    name, precisions, precision, threads = "fake", ("fp8",), "fp8", 3

    def __init__(self, segments, heads, noise=None, scores=None):
        self.segments, self.heads, self.now = segments, heads, 0.0
        self.noise = itertools.repeat(0.0) if noise is None else noise
        self.scores = (0.5,) * len(heads) if scores is None else scores

    def clock(self):
        return self.now

    def dynamic(self, model, policy):
        def session(x, policy):
            self.now += next(self.noise)
            for k, threshold in enumerate(policy.thresholds):
                self.now += self.segments[k] + (0 if threshold is None else self.heads[k])
                if threshold is not None and self.scores[k] >= threshold:
                    break
            else:
                k = len(self.heads)
                self.now += self.segments[k]
            n = len(x)
            return Trace(torch.zeros(n, model.num_outputs), torch.full((n,), k), torch.zeros(n))

        return session


def fake(segments=(3.0, 1.0, 2.0, 4.0), heads=(0.5, 0.25, 0.125), **options):
    return FakeRuntime(segments, heads, **options)


def leaving(table, unit):
    exits = len(table.after)
    return [table.to_exit((k,), unit)[k] for k in range(exits)] + [table.to_exit((), unit)[-1]]


def assert_sound(table, exits):
    for unit in ("seconds", "p95"):
        parts = table.in_unit(unit)
        assert min(parts.stem, *parts.steps, *parts.heads, parts.final) >= 0
        for on in itertools.product((False, True), repeat=exits):
            costs = table.to_exit(tuple(k for k in range(exits) if on[k]), unit)
            assert list(costs) == sorted(costs)


def test_parts_are_what_was_measured():
    runtime, model = fake(), tiny_model(after=(1, 2, 3))
    table = profile_in(runtime, model, batch_size=2, repeats=5, clock=runtime.clock)
    assert table.seconds == table.p95
    assert table.seconds.steps == pytest.approx((3.0, 1.0, 2.0, 4.0))
    assert table.seconds.heads == pytest.approx((0.5, 0.25, 0.125))
    assert (table.seconds.stem, table.seconds.final, table.batch_size) == (0.0, 0.0, 2)
    assert {k: table.conditions[k] for k in ("runtime", "precision", "threads", "device")} == {
        "runtime": "fake",
        "precision": "fp8",
        "threads": 3,
        "device": "cpu",
    }
    assert table.conditions["host"] == offramp.profile(model, repeats=1).conditions["host"]


def test_a_segment_stands_on_its_last_block_and_two_heads_may_stand_at_one():
    runtime = fake(segments=(3.0, 0.0, 4.0), heads=(0.25, 0.125))
    model = offramp.attach(tiny_vit(), [offramp.Exit(2), offramp.Exit(2, "mlp")])
    table = profile_in(runtime, model, repeats=1, clock=runtime.clock)
    assert table.seconds.steps == pytest.approx((0.0, 3.0, 0.0, 4.0))
    assert table.seconds.heads == pytest.approx((0.25, 0.125))
    runtime = fake(segments=(7.0,), heads=())
    table = profile_in(runtime, offramp.attach(tiny_vit(), []), repeats=1, clock=runtime.clock)
    assert table.seconds == PartCosts(0.0, (0.0, 0.0, 0.0, 7.0), (), 0.0)


def test_medians_and_late_runs_are_those_of_whole_runs():
    """Noise larger than any part: the sums are what was measured all the same, and nothing is negative."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        drawn = []

        def noise(generator=generator, drawn=drawn):
            while True:
                drawn.append(float(generator.exponential(2.0)))
                yield drawn[-1]

        runtime = fake(noise=noise())
        table = profile_in(runtime, tiny_model(), repeats=9, clock=runtime.clock)
        # ten rounds of seven ways, each four times; the first round, and all but the last of four, are not counted
        runs = np.array(drawn[-(10 * 28) :]).reshape(10, 7, 4)[1:, :, 3]
        clean = np.array([3.5, 4.25, 6.125, 10.0])
        for unit, number in (("seconds", 0.5), ("p95", 0.95)):
            expected = clean + np.quantile(runs[:, [1, 2, 3, 0]], number, axis=0)
            assert leaving(table, unit) == pytest.approx(expected.tolist())
        assert_sound(table, 3)


def test_an_exit_that_is_wholly_sure_cannot_be_told_from_its_head():
    runtime = fake(scores=(0.5, 1.0, 0.5))
    with pytest.raises(DataError, match="exit 1 is wholly sure"):
        profile_in(runtime, tiny_model(), clock=runtime.clock)
    runtime = fake(scores=(float("nan"), 0.5, 0.5))
    with pytest.raises(DataError, match="exit 0 has no score that is a number"):
        profile_in(runtime, tiny_model(), clock=runtime.clock)
    with pytest.raises(UsageError, match="0 repeats of a batch of 1"):
        profile_in(fake(), tiny_model(), repeats=0)


def test_the_promise_of_a_longest_time_is_that_of_the_runtime():
    """Medians of 4.5 s and more, of which one in ten runs takes twice as long."""
    late = itertools.chain.from_iterable(([0.0] * 9 * 28 + [8.0] * 28) for _ in itertools.count())
    runtime, model = fake(noise=late), tiny_model(task="counting")
    costs = profile_in(runtime, model, repeats=40, clock=runtime.clock)
    x = images(30)
    table = offramp.tabulate(model, [(x, torch.zeros(30))], {"runtime": "fake", "precision": "fp8"})
    policy = offramp.calibrate(table, costs, max_cost=11.7, unit="seconds")
    assert policy.heads == (0,), "3.5 s, and 11.5 s at times; exit 1 is within 11.7 s by its median only"
    with pytest.raises(offramp.GoalError, match=r"no exit costs at most 5 seconds: the first exit alone costs 11\.5"):
        offramp.calibrate(table, costs, max_cost=5.0, unit="seconds")


@pytest.mark.parametrize(("name", "precision"), [(n, p) for n in RUNTIMES for p in RUNTIMES.resolve(n).precisions])
def test_every_runtime_is_timed(name, precision, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = tiny_model(after=(1, 3), task="counting" if precision == "bf16" else "classification")
    table = profile_in(open_runtime(name, precision, threads=1), model, batch_size=2, repeats=3)
    assert_sound(table, 2)
    found = {k: table.conditions[k] for k in ("runtime", "precision", "threads", "device")}
    assert found == {"runtime": name, "precision": precision, "threads": 1, "device": "cpu"}
    assert table.conditions["host"]["cores"] >= 1
    assert table.macs == offramp.profile(model, repeats=0).macs
    assert table.seconds.steps[1] == 0, "of block 2 nothing is known"
    assert offramp.CostTable.from_json(table.to_json()) == table


@pytest.mark.parametrize(("name", "preprocess"), [("onnxruntime", True), ("openvino", False)])
def test_a_file_is_timed_as_it_is(name, preprocess, tmp_path):
    model = tiny_model(after=(1, 3))
    offramp.export_onnx(model, tmp_path / "m.onnx", Threshold((0.9, None)), preprocess=preprocess)
    runtime, ticks = open_runtime(name, threads=1), itertools.count()
    session = runtime.open(tmp_path / "m.onnx")
    table = profile_file(session, runtime, repeats=2, clock=lambda: float(next(ticks)))
    assert leaving(table, "seconds") == pytest.approx([1.0, 1.0, 1.0]), "a clock that ticks once a run"
    assert table.macs == offramp.profile(model, repeats=0).macs
    assert (table.conditions["runtime"], table.conditions["precision"]) == (name, "fp32")
    assert_sound(profile_file(session, runtime, batch_size=3, repeats=2), 2)
    session.file = replace(session.file, policy=Vote(2, (0, 1)))
    with pytest.raises(UsageError, match="only files whose thresholds switch exits on and off"):
        profile_file(session, runtime)


class FakePaths:
    """Nothing computes; a run takes what its parts cost, and every sample scores 0.5.

    Args:
        costs: whose ``seconds`` say what the parts cost.
    """

    name, precisions, precision, threads = "fake", ("fp8",), "fp8", 3

    def __init__(self, costs):
        self.costs, self.now = costs.in_chain("seconds"), 0.0

    def clock(self):
        return self.now

    def dynamic(self, model, policy):
        chain = self.costs.chain

        def session(x, policy):
            routed = isinstance(policy, Routed)
            rule = policy.inner if routed else policy
            entry = max(range(chain.num_paths), key=lambda p: policy.bias[p]) if routed else 0
            onto = chain.entered(rule.heads)[entry]
            leaves = (k for k in rule.heads if chain.paths[k] >= onto and rule.thresholds[k] <= 0.5)
            k = next(leaves, len(chain.after) - 1)
            self.now += self.costs.to_exit(rule.heads, entry, routed)[k]
            n = len(x)
            return Trace(torch.zeros(n, model.num_outputs), torch.full((n,), k), torch.zeros(n))

        return session


@pytest.mark.parametrize("router", [None, "cnn", "exit"])
@pytest.mark.parametrize("link", ["none", "recycle"])
def test_parts_of_several_paths_are_what_was_measured(link, router):
    options = {"exit": {"after": 1, "head": "linear"}}.get(router, {})
    part = None if router is None else Part(router, options)
    model = offramp.attach(tiny_vit(), [Exit(2), Exit(3)], tails=[2, 4], link=link, router=part)
    cheap = PartCosts(0.0, (0.0, 1.0, 2.0, 4.0), (0.25, 0.5), 0.0)
    ahead = {None: 0.0, "cnn": 0.0, "exit": 0.75}[router]
    known = replace(
        offramp.profile(model, repeats=0),
        seconds=PartCosts(
            0.0,
            (0.0, 8.0, 16.0, 32.0),
            (1.0, 2.0),
            0.0,
            3.0 if link == "recycle" else 0.0,
            (cheap,),
            0.0 if router is None else 0.125,
            ahead,
        ),
    )
    runtime = FakePaths(known)
    found = profile_in(runtime, model, repeats=3, clock=runtime.clock)
    assert found.seconds == found.p95
    expected, measured = known.in_chain("seconds"), found.in_chain("seconds")
    for heads in itertools.chain.from_iterable(itertools.combinations(range(5), n) for n in range(6)):
        assert measured.to_exit(heads) == pytest.approx(expected.to_exit(heads))
        if router is not None and link == "none":
            for entry in (0, 1):
                assert measured.to_exit(heads, entry, True) == pytest.approx(expected.to_exit(heads, entry, True))
    assert offramp.CostTable.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("name", "link", "router"),
    [
        ("torch", "none", "exit"),
        ("torch", "recycle", None),
        ("onnxruntime", "none", "cnn"),
        ("openvino", "upsample", "cnn"),
    ],
)
def test_several_paths_are_timed_in_every_runtime(name, link, router):
    torch.manual_seed(0)
    part = Part(router, {"after": 1}) if router == "exit" else router
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4], link=link, router=part).eval()
    table = profile_in(open_runtime(name, threads=1), model, batch_size=2, repeats=2)
    assert len(table.seconds.paths) == 2
    assert min(table.seconds.numbers()) >= 0
    assert (table.seconds.router > 0) == (router is not None) or table.seconds.router == 0.0
    costs = table.to_exit((0, 1, 2), "seconds")
    assert list(costs) == sorted(costs)


class FakeFile:
    """A file of several paths in which nothing computes.

    Args:
        file: what a real one says of itself.
        runtime: says what runs cost.
        model: whose file it is.
    """

    precision, raw = "fp32", False

    def __init__(self, file, runtime, model):
        self.file, self._run = file, runtime.dynamic(model, file.policy)

    def __call__(self, x, policy=None):
        return self._run(x, policy)


def known_costs(model, router, ahead=0.0):
    """Costs of a model of two paths with two exits each that doubles add up without rounding."""
    cheap = PartCosts(0.0, (0.0, 1.0, 2.0, 4.0), (0.25, 0.5), 0.0)
    dear = PartCosts(0.0, (0.0, 8.0, 16.0, 32.0), (1.0, 2.0), 0.0, 0.0, (cheap,), router, ahead)
    return replace(offramp.profile(model, repeats=0), seconds=dear)


@pytest.mark.parametrize("router", ["cnn", "exit", None])
def test_a_file_that_asks_its_router_is_timed(router, tmp_path):
    """What the router reads of the cheap path cannot be told from it; every run that the file can do adds up."""
    torch.manual_seed(0)
    part = Part("exit", {"after": 1, "head": "linear"}) if router == "exit" else router
    model = offramp.attach(tiny_vit(), [Exit(2), Exit(3)], tails=[2, 4], router=part).eval()
    known = known_costs(model, *{"cnn": (0.125, 0.0), "exit": (0.125, 0.75), None: (0.0, 0.0)}[router])
    policy = Routed(Threshold((0.9, None, 0.8, None, None)), (0.0, 0.0))
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    runtime = FakePaths(known)
    real = open_runtime("onnxruntime", threads=1).open(tmp_path / "m.onnx")
    session = FakeFile(real.file, runtime, model)
    found = profile_file(session, runtime, repeats=3, clock=runtime.clock)
    assert found.asks
    expected, measured = known.in_chain("seconds"), found.in_chain("seconds")
    for heads in itertools.chain.from_iterable(itertools.combinations(range(5), n) for n in range(6)):
        for entry in (0, 1):
            costs = expected.to_exit(heads, entry, True)
            assert measured.to_exit(heads, entry, True) == pytest.approx(costs)
            assert measured.to_exit(heads, entry) == measured.to_exit(heads, entry, True)
    assert offramp.CostTable.from_json(found.to_json()) == found


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_of_several_paths_is_timed(name, tmp_path):
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4], router="cnn").eval()
    runtime = open_runtime(name, threads=1)
    for policy in (Threshold((0.9, 0.8, None)), Routed(Threshold((0.9, 0.8, None)), (0.0, 0.1))):
        offramp.export_onnx(model, tmp_path / "m.onnx", policy)
        ticks = itertools.count()
        table = profile_file(
            runtime.open(tmp_path / "m.onnx"), runtime, repeats=2, clock=lambda ticks=ticks: float(next(ticks))
        )
        assert leaving(table, "seconds") == pytest.approx([1.0] * 4)
        assert table.seconds.router == float(isinstance(policy, Routed)), "one tick and one, less one for both"


def test_a_linked_file_that_asks_its_router_is_not_timed(tmp_path):
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4], router="cnn", link="upsample").eval()
    offramp.export_onnx(model, tmp_path / "m.onnx", Routed(Threshold((0.9, 0.8, None)), (0.0, 0.1)))
    runtime = open_runtime("onnxruntime", threads=1)
    with pytest.raises(UsageError, match="paths are linked"):
        profile_file(runtime.open(tmp_path / "m.onnx"), runtime)
