"""A model in two places: who goes on is answered as in one place, and where the link fails, from here."""

import itertools
import json
import math
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
import uvicorn
from helpers import model_of, path_model
from PIL import Image
from policy_examples import examples
from typer.testing import CliRunner

import offramp
from offramp import DataError, UsageError
from offramp._batches import count, take
from offramp.cli._app import app as verbs
from offramp.engine.loop import Walk
from offramp.engine.torch import TorchRuntime
from offramp.policies.threshold import Threshold
from offramp.protocol.edge import Edge
from offramp.protocol.http import build_app
from offramp.protocol.oip import STATES, read_request, write_request
from offramp.protocol.split import NOTHING, Way, expected_seconds, seconds_here, seconds_there, way_to
from offramp.protocol.states import States
from offramp.serving import Refused, Service
from offramp.types import Trace

pytestmark = pytest.mark.slow

TASKS = ("classification", "counting", "density", "pair")
N = 12


def cohorts(model, policy, x):
    """Who goes on behind each exit that is asked, and what it said of them."""
    with torch.inference_mode():
        walk = Walk(TorchRuntime().segments(model), x, policy, model.task)
        for k, answered in walk:
            if answered is not None and k < len(model.exits) and len(walk.cohort):
                rows = (answered.rows[:, None] == walk.cohort.rows).nonzero()[:, 0]
                yield k, walk.cohort, answered.output[rows], answered.score[rows]


def over_the_wire(states, k, cohort, output, score):
    body, headers = write_request(states.write(cohort, output, score), {})
    asked = read_request(body, int(headers["Inference-Header-Content-Length"]), STATES)
    return states.read(k, asked.inputs)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_every_policy_goes_on_in_a_service_as_in_one_place(task, sent, monkeypatch):
    """Unrounded: the same exits, the same answers, whatever the policy remembers, sent or not."""
    monkeypatch.setattr("offramp.protocol.states._SMALL", 10**9)
    model = model_of(task)
    x = model.input.example(N, torch.Generator().manual_seed(3))
    tried = {}
    for name, policies in examples(model, x).items():
        for make in () if name == "forced" else policies:  # forced is fixed row by row
            policy = make(torch.arange(N))
            expected = offramp.run(model, x, policy)
            with Service(model, policy) as service:
                states = States(model, policy, service.segments)
                for k, *given in cohorts(model, policy, x):
                    rows, given = given[0].rows, over_the_wire(states, k, *given) if sent else given
                    answers = [future.result() for future in service.resume(k, *given)]
                    assert [a.exit for a in answers] == expected.exit[rows].tolist(), name
                    found = torch.stack([a.output for a in answers])
                    torch.testing.assert_close(found, expected.output[rows], rtol=1e-4, atol=1e-5)
                    tried[name] = tried.get(name, 0) + 1
    assert tried.keys() == {name for name, policies in examples(model, x).items() if policies} - {"forced"}


@pytest.mark.parametrize("task", TASKS)
def test_what_is_sent_comes_back_rounded_and_no_more(task):
    model = model_of(task)
    x = model.input.example(N, torch.Generator().manual_seed(3))
    policy = Threshold((0.9, 0.9, 0.9), model.task.scores[0])
    states = States(model, policy, TorchRuntime().segments(model))
    seen = set()
    for k, cohort, output, score in cohorts(model, policy, x):
        back, said, sure = over_the_wire(states, k, cohort, output, score)
        assert torch.equal(said, output)
        assert torch.equal(sure.float(), score.float())
        assert torch.equal(back.previous, output)
        for before, after in zip(flattened(cohort.h), flattened(back.h), strict=True):
            assert before.shape == after.shape
            assert before.dtype == after.dtype
            if before.is_floating_point():
                limit = before.abs().flatten(2).amax(2) if before.ndim > 2 else before.abs()
                step = (limit / 127).reshape(*limit.shape, *(1,) * (before.ndim - limit.ndim))
                assert ((before - after).abs() <= 0.51 * step + 1e-9).all()
            else:
                assert torch.equal(before, after)
        seen.add(k)
    assert len(seen) > 1


def flattened(h):
    return [tensor for part in h for tensor in flattened(part)] if isinstance(h, tuple) else [h]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"h0": None}, "the inputs of samples that go on are h0"),
        ({"more": np.zeros((1, 1), np.float32)}, "the inputs of samples that go on are h0"),
        ({"h0": np.zeros((1, 2, 3), np.int8)}, "input 'h0' of samples that go on is int8"),
        ({"previous": np.zeros((2, 5), np.float32)}, "of samples that go on is"),
        ({"output": np.zeros((2, 5), np.float32)}, "input 'output' of samples that go on is float32"),
        ({"score": np.array([math.nan], np.float32)}, "input 'score' holds values that are not finite"),
        ({"h0.scale": np.zeros((1, 1), np.int32)}, "input 'h0.scale' of samples that go on is float32"),
        ({"output": [b"abc"]}, "input 'output' of samples that go on is float32"),
    ],
)
def test_other_states_get_a_sentence(changed, said):
    model = model_of("classification")
    policy = Threshold((1.0, 1.0, 1.0))
    states = States(model, policy, TorchRuntime().segments(model))
    k, *given = next(cohorts(model, policy, model.input.example(1)))
    inputs = {name: value for name, value in {**states.write(*given), **changed}.items() if value is not None}
    with pytest.raises(DataError, match=said):
        states.read(k, inputs)
    with pytest.raises(UsageError, match="exit 7 is not asked; these are: 0, 1, 2"):
        states.read(7, inputs)


def test_a_service_takes_no_more_than_it_has_room_for():
    model = model_of("classification")
    policy = Threshold((1.0, None, 1.0))
    x = model.input.example(4)
    k, *given = next(cohorts(model, policy, x))
    with Service(model, policy, most=3) as service:
        with pytest.raises(Refused, match="full: 3 samples are inside"):
            service.resume(k, *given)
        assert service.scheduler.inside == 0
        for exit_, limit, said in ((1, 1.0, "exit 1 is not asked; these are: 0, 2"), (0, 0.0, "the limit is 0")):
            with pytest.raises(UsageError, match=said):
                service.resume(exit_, *given, limit)
    with pytest.raises(Refused, match="closing"):
        service.resume(k, *given)


def test_whose_time_is_up_there_is_answered_with_what_was_said_here(monkeypatch):
    from offramp.serving import service as module

    plain = module.turn

    def slow(*given):
        time.sleep(0.3)
        return plain(*given)

    model = model_of("classification")
    policy = Threshold((1.0, 1.0, 1.0))
    k, cohort, output, score = next(cohorts(model, policy, model.input.example(2)))
    with Service(model, policy) as service:
        monkeypatch.setattr(module, "turn", slow)
        answers = [future.result() for future in service.resume(k, cohort, output, score, 0.05)]
    assert [a.exit for a in answers] == [k, k]
    assert all(a.stopped for a in answers)
    assert torch.equal(torch.stack([a.output for a in answers]), output)


@pytest.fixture(scope="module")
def served():
    """A server in a thread: the model, the policy, the address."""
    model = model_of("classification")
    model.classes = tuple("abcde")
    policy = Threshold((0.35, None, 0.4))
    server = uvicorn.Server(uvicorn.Config(build_app(Service(model, policy), "m", key="k"), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield model, policy, f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("split", [NOTHING, 0, 2, 3])
def test_in_two_places_as_in_one(served, split):
    model, policy, url = served
    x = model.input.example(40, torch.Generator().manual_seed(5))
    expected = offramp.run(model, x, policy)
    with Edge(model, policy, url, "m", split, key="k") as edge:
        found = [edge.answer(take(x, torch.tensor([i]))) for i in range(count(x))]
    for answer, exit_, output in zip(found, expected.exit.tolist(), expected.output, strict=True):
        assert answer.where == ("here" if exit_ <= split else "server")
        assert (answer.sent > 0) == (answer.where == "server")
        if answer.where == "here" or split == NOTHING:
            assert answer.exit == exit_
            torch.testing.assert_close(answer.output, output, rtol=1e-4, atol=1e-5)
    same = [a.exit == e for a, e in zip(found, expected.exit.tolist(), strict=True)]
    assert np.mean(same) > 0.9, "int8 moves a score over its threshold now and then, and no more"
    near = torch.stack([a.output for a in found])[torch.tensor(same)] - expected.output[torch.tensor(same)]
    assert near.abs().max() < 0.1 * expected.output.abs().max()


def test_a_file_is_sent_where_nothing_is_computed_here(served):
    import io

    model, policy, url = served
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(file, "png")
    x = model.input.transform()(model.input.read(io.BytesIO(file.getvalue())))[None]
    expected = offramp.run(model, x, policy)
    with Edge(model, policy, url, "m", NOTHING, key="k") as edge:
        found = edge.answer(x, file=file.getvalue())
    assert (found.where, found.exit) == ("server", int(expected.exit))


@pytest.mark.parametrize("asked", [{"max_exit": 2}, {"threshold": 0.5}])
def test_who_goes_on_asks_for_nothing_of_his_own(served, asked):
    import httpx

    model, policy, url = served
    strict = Threshold((1.0, None, 1.0))
    k, *given = next(cohorts(model, strict, model.input.example(1)))
    states = States(model, policy, TorchRuntime().segments(model))
    said = []
    for parameters in (asked, {}):
        body, headers = write_request(states.write(*given), parameters)
        headers["Authorization"] = "Bearer k"
        said.append(httpx.post(f"{url}/v2/models/m/from/{k}/infer", content=body, headers=headers, timeout=30))
    assert [answer.status_code for answer in said] == [400, 200]
    assert "by the server's policy" in said[0].json()["error"]
    nowhere = httpx.post(f"{url}/v2/models/m/from/first/infer", content=body, headers=headers)
    assert (nowhere.status_code, list(nowhere.json())) == (404, ["error"])


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("split", [NOTHING, 0, 2])
@pytest.mark.parametrize("fault", ["nobody", "other key", "other model", "garbage", "slow", "hangs up"])
def test_with_the_link_down_the_answer_is_the_last_one_from_here(served, split, fault):
    model, _, url = served
    strict = Threshold((1.0, None, 1.0))
    x = model.input.example(1)
    limit = 0.5 if fault == "slow" else 5.0
    with Faulty(fault, url) as (address, key, name), Edge(model, strict, address, name, split, key=key) as edge:
        found = edge.answer(x, limit)
    assert found.where == "cut off"
    assert found.exit == (3 if split == NOTHING else split)
    with torch.inference_mode():
        outputs = model(x)
    torch.testing.assert_close(found.output, outputs[found.exit][0], rtol=1e-4, atol=1e-5)


class Faulty:
    """An address where something is wrong."""

    def __init__(self, fault, url):
        self.fault, self.url, self.stop = fault, url, threading.Event()

    def __enter__(self):
        if self.fault in ("other key", "other model"):
            return self.url, *{"other key": ("no", "m"), "other model": ("k", "n")}[self.fault]
        if self.fault == "nobody":
            return f"http://127.0.0.1:{free_port()}", "k", "m"
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}", "k", "m"

    def serve(self):
        caller, _ = self.listening.accept()
        with caller:
            caller.settimeout(5)
            caller.recv(100)
            if self.fault == "garbage":
                caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"outputs": []}')
            if self.fault == "slow":
                self.stop.wait(10)

    def __exit__(self, *_):
        self.stop.set()
        if hasattr(self, "thread"):
            self.thread.join()
            self.listening.close()


def test_the_quickest_split_is_that_of_the_sums():
    """Against a walk through every sample: what is computed here, sent, and computed there."""
    rng = np.random.default_rng(0)
    heads, exits = (0, 2), (0, 2, 3)
    for _ in range(50):
        left = rng.choice(exits, 200)
        here, there = ({k: float(rng.random()) for k in exits} for _ in range(2))
        sizes = {-1: 100.0 * rng.random(), 0: 50.0, 2: 40.0, 3: 0.0}
        way = Way(float(rng.random()), float(rng.random()) / 50)
        trace = Trace(torch.zeros(200, 5), torch.tensor(left), torch.zeros(200))
        found = expected_seconds(trace, heads, here, there, sizes, way)
        assert list(found) == [-1, 0, 2, 3]
        for split, seconds in found.items():
            total = 0.0
            for exit_ in left:
                for k in (k for k in exits if k <= exit_):
                    total += here[k] if k <= split else there[k]
                total += way.seconds(sizes[split]) if exit_ > split else 0.0
            assert seconds == pytest.approx(total / 200)


def test_where_sending_is_free_everything_goes_and_where_it_is_not_nothing():
    trace = Trace(torch.zeros(4, 5), torch.tensor([0, 1, 2, 3]), torch.zeros(4))
    here, there, sizes = dict.fromkeys(range(4), 0.01), dict.fromkeys(range(4), 0.001), dict.fromkeys(range(-1, 4), 1e4)
    for way, best in ((Way(0.0, 0.0), -1), (Way(10.0, 0.0), 3), (Way(0.0, 1e-3), 3)):
        found = expected_seconds(trace, (0, 1, 2), here, there, sizes, way)
        assert min(found, key=found.get) == best
    sizes[1] = 10.0
    found = expected_seconds(trace, (0, 1, 2), here, there, sizes, Way(0.001, 1e-5))
    assert min(found, key=found.get) == 1, "a narrow place is where it is cut"


def test_the_way_is_measured(served):
    _, _, url = served
    way = way_to(url, "k")
    assert 0 < way.seconds(0) < 1
    assert 0 <= way.per_byte < 1e-5
    for wrong in ((f"http://127.0.0.1:{free_port()}", "k"), (url, "other")):
        with pytest.raises(UsageError, match=r"nobody answers at|answers 401"):
            way_to(*wrong)
    assert seconds_there(url, "m", "k").keys() == {0, 2, 3}
    with pytest.raises(UsageError, match="does not say what the model 'n' takes there"):
        seconds_there(url, "n", "k")


def test_a_narrow_way_is_seen_as_one(served):
    """A relay that lets 200,000 bytes a second through."""
    _, _, url = served
    listening = socket.create_server(("127.0.0.1", 0))
    threads = []

    def relay():
        caller, _ = listening.accept()
        server = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))

        def move(source, target, rate):
            with source, target:
                while data := source.recv(4096):
                    time.sleep(len(data) / rate)
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        for pair in ((caller, server, 2e5), (server.dup(), caller.dup(), 1e9)):
            threads.append(threading.Thread(target=move, args=pair))
            threads[-1].start()

    starter = threading.Thread(target=relay)
    starter.start()
    try:
        way = way_to(f"http://127.0.0.1:{listening.getsockname()[1]}", "k")
    finally:
        starter.join()
        listening.close()
    for thread in threads:
        thread.join(5)
    assert way.per_byte > 0.5 / 2e5, "it cannot be quicker; how much slower, the machine decides"


@pytest.mark.parametrize(
    ("split", "said"),
    [(1, "the split is exit 1; the policy asks 0, 2"), (9, "the split is exit 9"), (-2, "is exit -2")],
)
def test_a_split_that_is_none_is_said(served, split, said):
    model, policy, url = served
    with pytest.raises(UsageError, match=said):
        Edge(model, policy, url, "m", split)


def test_what_cannot_be_answered_is_said(served):
    model, policy, url = served
    with Edge(model, policy, url, "m", 0, key="k") as edge:
        for x, limit, error, said in (
            (model.input.example(2), 1.0, DataError, "one sample at a time, not 2"),
            (model.input.example(1) * math.nan, 1.0, DataError, "not finite"),
            (model.input.example(1), 0.0, UsageError, "the limit is 0"),
            (model.input.example(1), math.inf, UsageError, "the limit is inf"),
        ):
            with pytest.raises(error, match=said):
                edge.answer(x, limit)
    tailed = path_model()
    with pytest.raises(UsageError, match="only models of one path are split"):
        Edge(tailed, Threshold((0.5,) * len(tailed.exits)), url, "m", 0)
    with pytest.raises(UsageError, match="only models of one path are resumed"):
        States(tailed, Threshold((0.5,) * len(tailed.exits)), TorchRuntime().segments(tailed)).blank(0)


def test_seconds_here_are_those_of_the_exits_that_are_asked(served):
    model, policy, _ = served
    found = seconds_here(model, policy)
    assert list(found) == [0, 2, 3]
    assert all(value > 0 for value in found.values())


def test_the_verb(served, tmp_path, monkeypatch):
    model, policy, url = served
    from offramp.data import Samples, loader

    x = model.input.example(30)
    samples = Samples(list(x).__getitem__, np.arange(30) % 5, prepared=True)
    table = offramp.tabulate(model, loader(samples, model.input))
    offramp.save(model, tmp_path / "m", policy, table)
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    (tmp_path / "no.png").write_bytes(b"no picture")
    monkeypatch.setenv("OFFRAMP_KEY", "k")
    words = ["edge", str(tmp_path / "m"), url, str(tmp_path), "--device", "cpu"]
    for split in ("auto", "-1", "0", "3"):
        done = CliRunner().invoke(verbs, [*words, "--json", "--split", split])
        assert done.exit_code == 1, "one file is no picture"
        said = json.loads(done.stdout)
        assert [("error" in row) for row in said["answers"]] == [False, False, False, True]
        assert {row["where"] for row in said["answers"][:3]} <= ({"here", "server"} if split != "3" else {"here"})
        assert (said["expected_ms"] is None) == (split != "auto")
    done = CliRunner().invoke(verbs, [*words, "--split", "0"])
    assert "image 'no.png'" in done.stderr or "no.png" in done.stderr
    for more, sentence in (
        (["--split", "first"], "--split is 'first'"),
        (["--deadline-ms", "0"], "--deadline-ms is 0"),
    ):
        done = CliRunner().invoke(verbs, [*words, *more])
        assert sentence in str(done.exception)


def test_the_sizes_of_requests_follow_from_the_model(served):
    model, policy, url = served
    sizes = {}
    for split in (0, 2):
        with Edge(model, policy, url, "m", split, key="k") as edge:
            sizes[split] = edge.size()
            sent = edge.answer(model.input.example(1)).sent
            assert sent == 0 or abs(sent - sizes[split]) < 100
    tokens = math.prod(flattened(States(model, policy, TorchRuntime().segments(model)).blank(0).h)[0].shape)
    assert all(tokens < size < 2 * tokens + 2000 for size in sizes.values())
    assert len({*itertools.chain(sizes.values())}) <= 2


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path):
    offramp.save(model_of("classification"), tmp_path / "m", policy=Threshold((0.5,) * 3))
    words = ["offramp", "edge", str(tmp_path / "m"), "http://127.0.0.1:1", "a.png"]
    code = f"import sys; sys.modules['httpx'] = None; sys.argv = {words!r}\nfrom offramp.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "offramp: asking a server needs one more package: pip install 'offramp[edge]'\n"
