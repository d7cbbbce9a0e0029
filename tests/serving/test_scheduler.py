"""The scheduler under a clock of its own: whoever is let in is answered once, in time, and as deep as there is time."""

import math

import numpy as np
import pytest

from offramp import UsageError
from offramp.serving import Job, Line, Scheduler, simulate

LEVELS = 4


def scheduler(heads=(0, 1, 2), a=1e-3, b=5e-4, **sizes):
    """Four segments that take the same; between exits that are not asked nobody waits."""
    ends = (*heads, 3)
    lines = {k: Line(a * (k - before), b * (k - before)) for before, k in zip((-1, *ends), ends, strict=False)}
    return Scheduler(lines, **sizes)


def requests(n, load, limits, seed=0, bursts=False):
    """Poisson arrivals, or in bursts; limits drawn from these; samples that leave earlier as pressure rises."""
    rng = np.random.default_rng(seed)
    mean = 4 * (1e-3 + 5e-4 / 16) / load
    gaps = rng.exponential(mean, n)
    if bursts:
        gaps = np.where(rng.random(n) < 0.9, gaps / 10, 9.1 * gaps)
    easy = rng.choice(4, n, p=[0.5, 0.2, 0.15, 0.15])
    exits = np.stack([easy, *(np.maximum(easy - level, 0) for level in range(1, LEVELS))])
    return np.cumsum(gaps), rng.choice(limits, n), exits


@pytest.mark.parametrize("heads", [(0, 1, 2), (1,), ()], ids=str)
@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize("limits", [[0.02], [0.05], [0.01, 0.05, 0.5]], ids=str)
@pytest.mark.parametrize("load", [0.25, 1.0, 2.0, 4.0])
def test_where_batches_take_what_is_expected_nobody_who_is_let_in_is_late(load, limits, bursts, heads):
    arrivals, limit, exits = requests(3_000, load, limits, bursts=bursts)
    asked = np.array([*heads, 3])
    exits = asked[np.searchsorted(asked, exits)]  # nobody leaves where nobody is asked
    own = scheduler(heads)
    log = simulate(own, arrivals, limit, exits)
    let_in = log.exit >= 0
    assert own.inside == 0
    assert {*log.exit[let_in].tolist()} <= {*asked.tolist()}
    assert np.isfinite(log.seconds[let_in]).all()
    assert np.isnan(log.seconds[~let_in]).all()
    assert (log.seconds[let_in] <= limit[let_in] + 1e-9).all()
    assert (log.exit[let_in] <= exits[0][let_in]).all(), "nobody goes on who was let go"
    if load < 1 and not bursts and min(limits) >= 0.05:
        assert let_in.all()
        assert (log.exit == exits[0]).mean() > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_batches_that_take_longer_now_and_then_make_few_late(seed):
    """An eighth of the batches takes up to twice as long: of 1,000 samples that are let in at most one is late."""
    arrivals, limit, exits = requests(20_000, 2.0, [0.05], seed)
    own, rng = scheduler(), np.random.default_rng(seed)
    line = Line(1e-3, 5e-4)
    takes = lambda k, n: line.seconds(n) * (1 + (rng.random() < 1 / 8) * rng.random())  # noqa: E731
    log = simulate(own, arrivals, limit, exits, takes)
    let_in = log.exit >= 0
    assert let_in.mean() > 0.8
    assert (log.seconds[let_in] > limit[let_in] + 1e-9).mean() <= 0.001


def test_a_machine_that_becomes_slower_lets_fewer_in_and_keeps_its_word():
    """Three times slower from the middle on: what was let in on the old word may be late, a few and no more."""
    arrivals, limit, exits = requests(20_000, 1.0, [0.05])
    own, calls = scheduler(), iter(range(10**9))
    line = Line(1e-3, 5e-4)
    log = simulate(own, arrivals, limit, exits, lambda k, n: line.seconds(n) * (3 if next(calls) > 6_000 else 1))
    late = np.flatnonzero((log.exit >= 0) & (log.seconds > limit + 1e-9))
    assert len(late) < 60
    half = len(arrivals) // 2
    refused = log.exit < 0
    assert refused[-half // 2 :].mean() > refused[: half // 2].mean()
    assert own.lines[0].pace == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("paused", [0, 1, 2, 3])
@pytest.mark.parametrize("heads", [(0, 1, 2), (1,), ()], ids=str)
def test_one_long_pause_does_not_keep_anybody_out_for_ever(heads, paused):
    """A batch takes 500 times as long, whichever exit it goes to: what it says is forgotten, though nobody is computed
    who could show that it is wrong."""
    arrivals, limit, exits = requests(12_000, 0.5, [0.05])
    asked = np.array([*heads, 3])
    exits = asked[np.searchsorted(asked, exits)]
    paused = int(asked[np.searchsorted(asked, paused)])
    own, seen = scheduler(heads), iter(range(10**9))
    fresh = scheduler(heads).lines
    takes = lambda k, n: fresh[k].seconds(n) * (500 if k == paused and next(seen) == 50 else 1)  # noqa: E731
    log = simulate(own, arrivals, limit, exits, takes)
    last = slice(len(arrivals) // 2, None)
    assert (log.exit[last] >= 0).mean() > 0.99
    assert (log.exit[last] == exits[0][last]).mean() > 0.95


def test_deadlines_that_cannot_be_kept_teach_nothing():
    """Whoever asks for the impossible a thousand times does not make the next estimate bold."""
    own = scheduler()
    for _ in range(20):
        own.lines[0].saw(1, 3 * own.lines[0].at_first(1))
    before = own.lines[0].careful(1)
    for number in range(1000):
        assert own.admit(Job(1e-3, number), 0.0).startswith("too short")
    assert own.lines[0].careful(1) == before
    assert own.admit(Job(2e-3, "might be kept"), 0.0).startswith("too short")
    assert own.lines[0].careful(1) < before


def test_more_load_costs_depth_before_it_costs_answers():
    depth, answered = [], []
    for load in (0.5, 1.0, 2.0, 3.0):
        arrivals, limit, exits = requests(10_000, load, [0.05])
        log = simulate(scheduler(), arrivals, limit, exits)
        depth.append(log.exit[log.exit >= 0].mean())
        answered.append((log.exit >= 0).mean())
    assert depth == sorted(depth, reverse=True)
    assert depth[0] > depth[-1] + 0.3
    assert min(answered) > 0.99


def test_the_same_requests_give_the_same_log():
    logs = [simulate(scheduler(), *requests(5_000, 1.5, [0.01, 0.1])) for _ in range(2)]
    assert np.array_equal(logs[0].exit, logs[1].exit)
    assert np.array_equal(logs[0].seconds, logs[1].seconds, equal_nan=True)


def test_an_urgent_sample_goes_first_and_is_not_held_up_by_a_batch_that_is_too_large():
    own = scheduler(largest=64)
    for number in range(40):
        assert own.admit(Job(10.0, number), 0.0) is None
    assert own.admit(Job(0.006, "urgent"), 0.0) is None
    k, batch, ended = own.next(0.0)
    assert (k, batch[0].payload, ended) == (0, "urgent", [])
    assert own.lines[0].seconds(len(batch)) <= 0.006 < own.lines[0].seconds(len(batch) + 1)


@pytest.mark.parametrize("seed", range(3))
def test_who_is_refused_leaves_nothing_behind_and_who_is_held_counts_as_who_is_let_in(seed):
    """Whoever waits, is computed or has left meanwhile: a twin to whom they come at once says the same."""
    rng, own, twin, now, said = np.random.default_rng(seed), scheduler(), scheduler(), 0.0, set()
    for number in range(2_000):
        now += rng.exponential(4e-4)
        deadline = now + rng.choice([0.0005, 0.004, 0.02, math.inf])
        before = [*own._unanswered], own.inside
        job = Job(deadline, number)
        reason = own.hold(job, now)
        assert twin.admit(Job(deadline, number), now) == reason
        if reason is None:
            own.enter(job)
        else:
            assert ([*own._unanswered], own.inside) == before
        said.add(reason and reason.split(":")[0])
        if rng.random() < 0.3 and (chosen := own.next(now)) is not None:
            k, batch, _ = chosen
            other, likewise, _ = twin.next(now)
            assert (k, [job.payload for job in batch]) == (other, [job.payload for job in likewise])
            seconds = own.lines[k].seconds(len(batch))
            now += seconds
            stays = [k < 3 and rng.random() < 0.5 for _ in batch]
            for each, jobs in ((own, batch), (twin, likewise)):
                each.computed(k, jobs, stays, now, seconds)
    assert said == {None, "too short", "busy"}


def test_places_of_those_who_are_read_are_kept_and_time_to_read_them_too():
    own = scheduler()
    assert own.hold(Job(0.0091, "is read"), 0.0) is None
    assert own.inside == 1
    assert own.next(0.0) is None, "nobody is there yet"
    assert [own.admit(Job(0.009, n), 0.0) for n in range(20)].count(None) < 8, "its time is not given to others"
    own = scheduler()
    for seconds in (0.010, 0.014) * 100:
        own.read(seconds)
    assert own.hold(Job(0.02), 0.0).startswith("too short: a first answer takes 21")
    assert own.admit(Job(0.02), 0.0) is None, "who is there need not be read"
    assert own.hold(Job(0.023), 0.0) is None


def test_one_stall_in_reading_does_not_keep_anybody_out_for_ever():
    own = scheduler()
    own.read(30.0)
    assert own.hold(Job(0.02), 0.0).startswith("too short")
    for number in range(300):
        if own.hold(Job(0.02, number), 0.0) is None:
            break
    else:
        raise AssertionError("one stall keeps everybody out for ever")


def test_nobody_computes_deeper_while_one_who_is_read_could_not_wait():
    """The urgent one may come at any moment; who has an answer has time."""
    own = scheduler(largest=4)
    for number in range(4):
        assert own.admit(Job(1.0, number), 0.0) is None
    k, batch, _ = own.next(0.0)
    own.computed(k, batch, [True] * 4, 0.005, 0.005)
    urgent = Job(0.005 + 0.003, "urgent")
    assert own.hold(urgent, 0.005) is None
    assert own.next(0.005) is None
    own.retract(urgent)
    assert own.next(0.005)[0] == 1


def test_whom_a_sample_would_make_late_counts_too():
    """Alone it would be in time, and behind it somebody who was promised an answer would not."""
    own = scheduler(largest=1)
    for number in range(6):
        assert own.admit(Job(0.0091, number), 0.0) is None
    assert own.admit(Job(0.008, "before them"), 0.0) == "busy: 6 wait for a first answer"
    assert own.admit(Job(0.02, "behind them"), 0.0) is None
    assert own.admit(Job(0.001, "too soon"), 0.0).startswith("too short: a first answer takes 1.5 ms now")
    assert own.inside == 7


def test_pressure_is_what_is_to_do_over_the_time_there_is():
    own = scheduler()
    assert own.pressure(0.0) == 0
    for deadline in (0.05, 0.15, float("inf")):
        assert own.admit(Job(deadline), 0.0) is None
    assert own.pressure(0.0) == pytest.approx(4 * (3 * 1e-3 + 5e-4) / 0.1)
    k, batch, _ = own.next(0.0)
    assert own.pressure(0.0) == 0, "nobody waits"
    own.computed(k, batch, [True, True, False], 0.02, 0.02)
    assert own.pressure(0.02) == pytest.approx(3 * (2 * 1e-3 + 5e-4) / 0.08)


def test_lines_go_through_what_was_measured_and_follow_what_is():
    line = Line.through([(1, 0.003), (4, 0.006), (16, 0.018)])
    assert (line.a, line.b) == pytest.approx((1e-3, 2e-3))
    for points in ([(1, 0.005), (8, 0.005)], [(4, 0.002)], [(1, 0.001), (2, 0.004)]):
        found = Line.through(points)
        assert found.a > 0
        assert found.b >= 0
    for _ in range(200):
        line.saw(8, 2 * line.a * 8 + 2 * line.b)
    assert line.seconds(8) == pytest.approx(0.02, rel=1e-3)
    assert line.careful(8) == pytest.approx(0.02, rel=0.02)
    line.saw(8, 0.06)
    assert line.careful(8) > 1.2 * line.seconds(8)


def test_a_line_that_was_measured_wrongly_is_set_right_by_batches_of_other_sizes():
    rng = np.random.default_rng(0)
    line = Line(3e-3, 1e-4)
    for n in rng.integers(1, 9, 300):
        line.saw(int(n), (1e-3 * n + 6e-3) * (1 + 0.1 * rng.standard_normal()))
    for n in (1, 4, 8):
        assert line.seconds(n) == pytest.approx(1e-3 * n + 6e-3, rel=0.12)
    assert 4 * 0.05 < line.careful(4) / line.seconds(4) - 1 < 4 * 0.12
    other = line.copy()
    other.saw(1, 1.0)
    assert other.seconds(1) > 2 * line.seconds(1)


@pytest.mark.parametrize("seconds", [[0.01] * 9, [1e-9] * 9, [1.0, 1e-6] * 9])
def test_no_times_make_a_line_fall_below_nothing(seconds):
    line = Line(1e-3, 5e-4)
    for n, each in enumerate(seconds, 1):
        line.saw(n, each)
        assert line.slope > 0
        assert line.base >= 0


def test_what_handing_over_takes_is_kept_free_and_one_stall_is_forgotten():
    own = scheduler(reserve=1e-3)
    assert own.reserve == 1e-3
    for seconds in (4e-3, 6e-3) * 100:
        own.handed(seconds)
    assert 1e-3 + 6e-3 < own.reserve < 1e-3 + 12e-3
    own.handed(2.0)
    assert own.admit(Job(0.02), 0.0).startswith("too short")
    for number in range(200):
        if own.admit(Job(0.02, number), 0.0) is None:
            break
    else:
        raise AssertionError("one stall keeps everybody out for ever")
    log = simulate(scheduler(reserve=5e-3), *requests(2_000, 2.0, [0.05]))
    let_in = log.exit >= 0
    assert (log.seconds[let_in] <= 0.045 + 1e-9).all()


def test_answers_are_worth_more_than_depth():
    """Batches that cost much more than their samples, at twice what can be carried to the end."""
    shares = []
    for load in (1.0, 2.0):
        arrivals, limit, exits = requests(10_000, load * 1.5e-3 / 6e-3, [0.2])
        log = simulate(scheduler(a=2e-3, b=5e-3), arrivals, limit, exits)
        shares.append((log.exit >= 0).mean())
    assert shares[0] > 0.99
    assert shares[1] > 0.6


@pytest.mark.parametrize("wrong", [{"a": 0.0}, {"a": float("nan")}, {"b": -1.0}, {"largest": 0}, {"reserve": -1.0}])
def test_sizes_and_times_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError):
        scheduler(**wrong)


def test_what_does_not_fit_together_is_refused():
    arrivals, limits, exits = requests(10, 1.0, [0.1])
    for changed in ((arrivals, limits[:5], exits), (arrivals, limits, exits[:, :5]), (arrivals, limits, exits[:0])):
        with pytest.raises(UsageError, match="do not fit together"):
            simulate(scheduler(), *changed)
    with pytest.raises(UsageError, match="arrivals rise"):
        simulate(scheduler(), arrivals[::-1], limits, exits)
    with pytest.raises(UsageError, match="has exits"):
        Scheduler({})
