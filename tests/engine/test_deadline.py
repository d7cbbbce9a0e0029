"""Deadlines, on a clock that tests turn by hand."""

import pytest
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp import UsageError
from offramp.engine.torch import TorchSegments
from offramp.policies.threshold import Threshold
from offramp.types import CostTable, PartCosts

COSTS = CostTable((1, 2, 3), PartCosts(0, (1,) * 4, (0,) * 3, 0), p95=PartCosts(0.0, (1.0,) * 4, (0.1,) * 3, 0.1))


class Clocked(TorchSegments):
    """Each segment takes a second, each head a tenth."""

    def __init__(self, model, slow=0.0):
        super().__init__(model)
        self.now, self.slow = 0.0, slow

    def step(self, k, h):
        self.now += 1.0 + self.slow
        return super().step(k, h)

    def head(self, k, h):
        self.now += 0.1
        return super().head(k, h)

    def final(self, h):
        self.now += 0.1
        return super().final(h)


def until(model, x, limit, policy=None, answer="last", slow=0.0):
    runtime = Clocked(model, slow)
    trace = offramp.run_until(model, x, limit, COSTS, policy, answer, runtime, clock=lambda: runtime.now)
    return trace, runtime.now


@pytest.mark.parametrize(
    ("limit", "exit", "spent"),
    [(0.0, 0, 1.1), (1.15, 0, 1.1), (2.19, 0, 1.1), (2.25, 1, 2.2), (3.35, 2, 3.3), (4.45, 3, 4.4), (99.0, 3, 4.4)],
)
def test_a_segment_starts_only_if_it_fits(limit, exit, spent):
    model, x = tiny_model(), images(4)
    trace, now = until(model, x, limit)
    assert trace.exit.tolist() == [exit] * 4
    assert now == pytest.approx(spent)
    assert torch.allclose(trace.output, model(x)[exit], atol=1e-5)


def test_each_sample_has_a_limit_of_its_own():
    model, x = tiny_model(), images(4)
    trace, _ = until(model, x, [99.0, 0.0, 2.25, 3.35])
    assert trace.exit.tolist() == [3, 0, 1, 2]
    outputs = model(x)
    for i, k in enumerate(trace.exit.tolist()):
        assert torch.allclose(trace.output[i], outputs[k][i], atol=1e-4)


def test_a_slow_segment_is_not_broken_off_and_the_next_does_not_start():
    trace, now = until(tiny_model(), images(2), 2.25, slow=0.5)
    assert trace.exit.tolist() == [0, 0]
    assert now == pytest.approx(1.6)


def test_a_policy_lets_samples_go_before_their_limit():
    model, x = tiny_model(), images(60)
    policy = Threshold(spread_thresholds(model, x))
    trace, _ = until(model, x, 99.0, policy)
    expected = offramp.run(model, x, policy)
    assert torch.equal(trace.exit, expected.exit)
    assert torch.allclose(trace.output, expected.output, atol=1e-5)


def test_a_head_that_the_policy_does_not_ask_runs_where_there_is_no_other_answer():
    model, x = tiny_model(), images(3)
    trace, now = until(model, x, [1.5, 1.5, 99.0], Threshold((None, None, 1.0)))
    assert trace.exit.tolist() == [0, 0, 3]
    assert now == pytest.approx(1.1 + 1.0 + 1.1 + 1.1)


def test_what_the_loop_takes_at_an_exit_is_set_aside_for_the_next():
    runtime = Clocked(tiny_model())

    class Slow(Threshold):
        """Takes a fifth of a second to decide."""

        def step(self, state, evidence):
            runtime.now += 0.2
            return super().step(state, evidence)

    def exits(limit):
        runtime.now, policy = 0.0, Slow((1.0, 1.0, 1.0))
        trace = offramp.run_until(
            tiny_model(), images(2), limit, COSTS, policy, "last", runtime, clock=lambda: runtime.now
        )
        return trace.exit.tolist(), runtime.now

    # after the second segment the clock stands at 2.3; two heads, a segment and two decisions are 1.6
    assert exits(3.85) == ([1, 1], pytest.approx(1.3 + 1.1 + 0.2))
    assert exits(3.95) == ([2, 2], pytest.approx(3.9))


def test_kinds_of_answers():
    model, x = tiny_model(seed=2), images(50)
    task, outputs = model.task, model(x)[:3]
    scores = torch.stack([task.score("confidence", o, None) for o in outputs])
    cache, _ = until(model, x, 3.35, answer="cache")
    best = torch.stack(outputs).gather(0, scores.argmax(0)[None, :, None].expand(1, -1, 5))[0]
    assert torch.allclose(cache.output, best, atol=1e-5)
    assert torch.allclose(cache.score, scores.amax(0), atol=1e-5)
    product, _ = until(model, x, 3.35, answer="product")
    raw = torch.stack(outputs).clamp(min=0).prod(0)
    known = raw.sum(1) > 0
    assert torch.allclose(product.output.softmax(1)[known], (raw / raw.sum(1, keepdim=True))[known], atol=1e-5)
    geometric, _ = until(model, x, 3.35, answer="geometric")
    mean = torch.stack([o.log_softmax(1) for o in outputs]).mean(0).softmax(1)
    assert torch.allclose(geometric.output.softmax(1), mean, atol=1e-5)


def test_what_cannot_be():
    model, x = tiny_model(), images(2)
    with pytest.raises(UsageError, match="did you mean 'last'"):
        offramp.run_until(model, x, 1.0, COSTS, answer="lst")
    with pytest.raises(UsageError, match="need a cost table with times"):
        offramp.run_until(model, x, 1.0, offramp.profile(model, repeats=0))
    assert len(offramp.run_until(model, x[:0], 1.0, COSTS).exit) == 0


def test_on_a_real_clock():
    model, x = tiny_model(), images(8)
    costs = offramp.profile(model, batch_size=8)
    assert costs.p95.static >= costs.seconds.static * 0.5
    assert offramp.run_until(model, x, 60.0, costs).exit.tolist() == [3] * 8
    assert offramp.run_until(model, x, 0.0, costs).exit.tolist() == [0] * 8
