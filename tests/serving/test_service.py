"""A service answers as one batch would: whoever came when, with whom, whatever the policy, task and path."""

import threading
from dataclasses import replace

import pytest
import torch
from helpers import inputs, model_of, path_model
from policy_examples import NO_MIDDLE, examples

import offramp
from offramp import DataError, Routed, UsageError
from offramp._batches import take
from offramp.policies.patience import Patience
from offramp.policies.threshold import Threshold
from offramp.registry import LINKS, POLICIES, ROUTERS, TASKS
from offramp.serving import Refused, Service
from offramp.testing._policies import assert_same, near_threshold
from offramp.types import Trace

pytestmark = pytest.mark.slow

N = 128
ROWS = torch.arange(N)


def trickle(service, x, seed=0):
    """Batches of one to five, from three callers at once; the answers in the order of ``x``, as a trace."""
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    found = {}

    def call(rows):
        rest, size = rows, 1
        while len(rest):
            part, rest, size = rest[:size], rest[size:], size % 5 + 1
            for row, future in zip(part.tolist(), service.submit(take(x, part)), strict=True):
                found[row] = future

    callers = [threading.Thread(target=call, args=(rows,)) for rows in order.chunk(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == N
    answers = [found[row].result(timeout=60) for row in range(N)]
    assert not any(answer.stopped for answer in answers)
    return Trace(
        torch.stack([a.output for a in answers]),
        torch.tensor([a.exit for a in answers]),
        torch.tensor([a.score for a in answers]),
        torch.tensor([a.path for a in answers]),
    )


def assert_as_in_one_batch(model, x, policy, largest):
    with Service(model, policy, largest=largest) as service:
        found = trickle(service, x)
        assert service.scheduler.inside == 0
    expected = offramp.run(model, x, policy)
    near = near_threshold(policy, offramp.tabulate(model, [(x, torch.zeros(N))]), model)
    assert_same(replace(found, entry=expected.entry), expected, near, "served")


@pytest.fixture(scope="module", params=[*TASKS, "pair"])
def setting(request):
    model = model_of(request.param)
    return model, inputs(model, N)


@pytest.mark.parametrize("name", sorted({*POLICIES} - {"forced"}))
def test_every_policy_of_every_task(setting, name):
    model, x = setting
    for make, largest in zip(examples(model, x)[name], (7, 1, 64, 7), strict=False):
        assert_as_in_one_batch(model, x, make(ROWS), largest)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("router", [None, *ROUTERS])
def test_every_link_and_router(link, router):
    model = path_model(link, router)
    x = inputs(model, N)
    for name in ("threshold", "vote", "ensemble"):
        policy = examples(model, x)[name][0](ROWS)
        assert_as_in_one_batch(model, x, policy, 5)
        if router is not None and name not in NO_MIDDLE:
            assert_as_in_one_batch(model, x, Routed(policy, model.middle), 5)


class Slowly:
    """Segments that take a while, or fail, one call of ``step`` after the other."""

    def __init__(self, segments, says):
        self.segments, self.says = segments, says

    def __getattr__(self, name):
        return getattr(self.segments, name)

    def step(self, k, h):
        self.says(k)
        return self.segments.step(k, h)


@pytest.fixture
def served():
    """A service in which nobody leaves early, and samples for it."""
    model = model_of("classification")
    x = inputs(model, 8)
    service = Service(model, Threshold((1.0, 1.0, 1.0)), largest=4)
    yield service, x
    service.close()


def test_at_its_deadline_a_sample_is_answered_with_the_deepest_exit_that_there_is(served):
    service, x = served
    came, go_on = threading.Event(), threading.Event()

    def says(k):
        if k == 2:
            came.set()
            assert go_on.wait(30)

    service.segments = Slowly(service.segments, says)
    (future,) = service.submit(x[:1], limit=5.0)
    assert came.wait(30)
    answer = future.result(timeout=30)  # while the third segment is still being computed
    assert not go_on.is_set()
    assert (answer.exit, answer.stopped) == (1, True)
    expected = offramp.run(service.model, x[:1], Threshold((None, 0.0, None)))
    torch.testing.assert_close(answer.output, expected.output[0], rtol=1e-4, atol=1e-5)
    go_on.set()
    (again,) = service.submit(x[:1])
    assert again.result(timeout=30).exit == 3


def test_a_batch_that_fails_is_told_to_those_in_it_and_the_others_go_on(served):
    service, x = served
    fails = iter([True])

    def says(k):
        if k == 1 and next(fails, False):
            raise MemoryError("no room")

    service.segments = Slowly(service.segments, says)
    (lost,) = service.submit(x[:1])
    with pytest.raises(MemoryError, match="no room"):
        lost.result(timeout=30)
    assert [future.result(timeout=30).exit for future in service.submit(x)] == [3] * 8
    assert service.scheduler.inside == 0


def test_all_samples_of_a_call_are_let_in_or_none(served):
    service, x = served
    service.scheduler.most = 6
    with pytest.raises(Refused, match="full: 6 samples are inside"):
        service.submit(x)
    assert service.scheduler.inside == 0
    assert len([future.result(timeout=30) for future in service.submit(x[:6])]) == 6
    with pytest.raises(Refused, match=r"too short: a first answer takes .* ms now"):
        service.submit(x[:1], limit=1e-9)


def test_what_is_asked_of_one_sample_is_done_for_it_alone(served):
    service, x = served
    first = service.submit(x[:4], max_exit=0)
    second = service.submit(x[4:], threshold=0.0)
    third = service.submit(x[:4], max_exit=2)
    assert [future.result(timeout=30).exit for future in first + second + third] == [0] * 8 + [2] * 4
    assert [future.result(timeout=30).exit for future in service.submit(x)] == [3] * 8


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"limit": 0.0}, "the limit is 0.0 s; it is above 0"),
        ({"limit": float("nan")}, "the limit is nan s; it is above 0"),
        ({"threshold": 1.5}, "the threshold is 1.5; it lies between 0 and 1"),
        ({"max_exit": -1}, "max_exit is -1; the first exit that is asked is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(served, asked, said):
    service, x = served
    with pytest.raises(UsageError, match=said):
        service.submit(x, **asked)
    with pytest.raises(DataError):
        service.submit(x[:, :, :5])
    with pytest.raises(DataError, match="not finite"):
        service.submit(x * float("nan"))
    assert service.scheduler.inside == 0


def test_whoever_is_inside_is_answered_before_it_closes_and_nobody_comes_in_after(served):
    service, x = served
    futures = [future for _ in range(20) for future in service.submit(x)]
    gone = futures[-1].cancel()
    service.close()
    assert all(future.done() for future in futures)
    assert [future.result().exit for future in futures[: -1 if gone else None]] == [3] * (160 - gone)
    with pytest.raises(Refused, match="closing"):
        service.submit(x)
    with pytest.raises(Refused, match="closing"), service.places(1):
        pass
    service.close()


def test_who_has_a_place_is_let_in_and_a_place_that_is_not_taken_is_given_back(served):
    service, x = served
    service.scheduler.most = 3
    with service.places(3, 20.0) as places:
        assert service.scheduler.inside == 3
        with pytest.raises(Refused, match="full: 3 samples are inside"):
            service.submit(x[:1])
        with pytest.raises(Refused, match="full"), service.places(1):
            pass
        futures = service.submit(x[:3], places)
        with pytest.raises(Refused, match="the places are taken"):
            service.submit(x[:3], places)
    assert [future.result(timeout=30).exit for future in futures] == [3] * 3
    for wrong, error in ((x[:2], UsageError), (x[:3] * float("nan"), DataError)):
        with pytest.raises(error), service.places(3) as places:
            service.submit(wrong, places)
        assert service.scheduler.inside == 0
    with service.places(1) as late:
        pass
    with pytest.raises(Refused, match="the places are taken or given back"):
        service.submit(x[:1], late)
    with pytest.raises(Refused, match=r"too short: a first answer takes .* ms now"), service.places(1, 1e-9):
        pass
    with pytest.raises(UsageError, match="above 0"), service.places(1, 0.0):
        pass
    assert service.scheduler.inside == 0
    assert not service.scheduler._unanswered


def test_a_service_that_closes_takes_nobody_who_was_still_read(served):
    service, x = served
    with service.places(1) as places:
        service.close()
        with pytest.raises(Refused, match="closing"):
            service.submit(x[:1], places)
    assert service.scheduler.inside == 0


def test_places_that_are_given_back_let_the_others_go_on(served):
    """Who has an answer waits for one who is read and has little time, and not for ever where that one never comes."""
    service, x = served
    came, go_on = threading.Event(), threading.Event()

    def says(k):
        if k == 0:
            came.set()
            assert go_on.wait(30)

    service.segments = Slowly(service.segments, says)
    (future,) = service.submit(x[:1])
    assert came.wait(30)
    with service.places(1, 1.0):
        go_on.set()
    assert future.result(timeout=30).exit == 3


def test_as_long_as_handing_over_takes_is_kept_free_twice(served):
    """Once for the answer, once for the request, which waits for the same loop before anybody here sees it."""
    service, x = served
    (answer,) = [future.result(timeout=30) for future in service.submit(x[:1])]
    service.clock = lambda: answer.at + 0.01
    for _ in range(200):
        service.handed([answer])
    assert service.scheduler.reserve == pytest.approx(0.02, rel=0.05)
    with pytest.raises(Refused, match="too short"):
        service.submit(x[:1], limit=0.015)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_leaves_nobody_waiting(served, monkeypatch):
    service, x = served
    monkeypatch.setattr(service.scheduler, "pressure", lambda now: 1 / 0)
    (future,) = service.submit(x[:1])
    with pytest.raises(ZeroDivisionError):
        future.result(timeout=30)
    with pytest.raises(Refused, match="closing"):
        service.submit(x[:1])


def test_policies_that_cannot_take_each_others_place_are_refused():
    model, first = model_of("classification"), Threshold((0.5, 0.5, 0.5))
    for other in (
        Threshold((0.5, None, 0.5)),
        Threshold((0.5, 0.5, 0.5), "margin"),
        Patience(1, (0, 1, 2)),
        Routed(first, (0.0,)),
    ):
        with pytest.raises(UsageError, match="of one kind, read one score and ask the same exits"):
            Service(model, first, [other])
    with pytest.raises(UsageError, match="the policy needs exits"):
        Service(model, Threshold((0.5,) * 5))
    with pytest.raises(UsageError, match="computes whole files"):
        Service(model, first, runtime="onnxruntime")


@pytest.mark.parametrize(("pressure", "exit"), [(0.0, 3), (0.49, 3), (0.5, 0), (7.0, 0)])
def test_under_pressure_policies_take_each_others_place(served, monkeypatch, pressure, exit):
    service, x = served
    service.levels = (*service.levels, Threshold((0.0, 1.0, 1.0)))
    monkeypatch.setattr(service.scheduler, "pressure", lambda now: pressure)
    assert {future.result(timeout=30).exit for future in service.submit(x)} == {exit}
