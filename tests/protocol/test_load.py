"""Asking a server: requests leave when they are due, and what comes back, or does not, is counted as what it is."""

import asyncio
import io
import json
import math
import socket

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from helpers import model_of
from PIL import Image
from typer.testing import CliRunner

from offramp import DataError, UsageError
from offramp.cli._app import app, main
from offramp.policies.threshold import Threshold
from offramp.protocol.form import Form
from offramp.protocol.load import Parcel, Replies, describe, parcels_of, send, summary
from offramp.protocol.null import build_null, null_server
from offramp.protocol.oip import read_request, read_response, write_request
from offramp.serving import Service

pytestmark = pytest.mark.slow


def picture(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def ask(handler, arrivals, parcels=None, patience=5.0, **how):
    """What a server in this loop is asked, and what comes back."""

    async def both():
        served = web.Application()
        served.router.add_post("/", handler)
        async with TestServer(served) as server:
            return await send(str(server.make_url("/")), parcels or [Parcel(b"0", {})], arrivals, patience, **how)

    return asyncio.run(both())


async def at_once(request):
    return web.json_response({"outputs": [{"name": "exit", "data": [int(await request.text() or 0)]}]})


def test_requests_are_what_the_server_reads():
    inputs = {"x": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "f": [b"", b"abc"]}
    body, headers = write_request(inputs, {"timeout": 5})
    asked = read_request(body, int(headers["Inference-Header-Content-Length"]))
    assert np.array_equal(asked.inputs["x"], inputs["x"])
    assert asked.inputs["f"] == inputs["f"]
    assert asked.parameters == {"timeout": 5}
    for nothing in (b"", b"[]", b"{}", b'{"outputs": 1}', b'{"outputs": [{"name": "x"}]}', b"[" * 100_000):
        with pytest.raises(DataError, match="the answer is not of the Open Inference Protocol"):
            read_response(nothing)


@pytest.mark.parametrize("task", ["classification", "counting", "density", "pair"])
def test_requests_fit_the_model_that_is_asked(task):
    model = model_of(task)
    form = Form(model, 64)
    about = form.metadata("m")
    for samples in (1, 3):
        made = parcels_of(about, [], samples, {"timeout": 1})
        assert len({parcel.body for parcel in made}) == len(made) == 16
        asked = read_request(made[0].body, int(made[0].headers["Inference-Header-Content-Length"]))
        model.input.check(form.batch(asked.inputs))
    assert [p.body for p in parcels_of(about, [], 1, {})] == [p.body for p in parcels_of(about, [], 1, {})]
    assert parcels_of(about, [], 1, {}, seed=1)[0].body != parcels_of(about, [], 1, {}, seed=0)[0].body


def test_files_are_taken_in_turn_with_what_would_be_right():
    about = {"name": "m", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}]}
    files = [(b"1", "a"), (b"2", "b"), (b"3", "c")]
    made = parcels_of(about, files, 2, {})
    assert [parcel.truth for parcel in made] == [["a", "b"], ["c", "a"]]
    own = [read_request(p.body, int(p.headers["Inference-Header-Content-Length"])).inputs["image"] for p in made]
    assert own == [[b"1", b"2"], [b"3", b"1"]]
    assert parcels_of(about, [(b"1", "a"), (b"2", None)], 2, {})[0].truth == ()
    with pytest.raises(DataError, match="the model m takes no float32 samples of one shape: give files"):
        parcels_of(about, [], 1, {})
    with pytest.raises(DataError, match="the model n takes no files"):
        parcels_of({"name": "n", "inputs": []}, files, 1, {})


def test_a_slow_server_does_not_slow_its_callers():
    async def slow(request):
        await asyncio.sleep(0.4)
        return await at_once(request)

    arrivals = np.arange(20) * 0.02
    found = ask(slow, arrivals)
    assert (found.status == 200).all()
    assert (found.seconds >= 0.4).all()
    assert found.elapsed < 20 * 0.4  # one after the other they would take that
    waits = ask(slow, arrivals[:4], connections=1)
    assert (np.diff(waits.seconds) > 0.2).all()  # who waits for a connection waits


def test_what_does_not_come_back_is_counted():
    said = {"0": 200, "1": 503, "2": 429, "3": 504, "4": 400, "5": 500}

    async def odd(request):
        word = await request.text()
        if word == "6":
            request.transport.abort()
        if word == "7":
            await asyncio.sleep(30)
        return web.json_response({"outputs": []}, status=said.get(word, 200))

    parcels = [Parcel(str(k).encode(), {}) for k in range(8)]
    found = ask(odd, np.zeros(8), parcels, patience=1.0)
    assert found.status.tolist() == [200, 503, 429, 504, 400, 500, 0, 0]
    assert np.isnan(found.seconds[6:]).all()
    counted = summary(found, 1.0)
    assert (counted["in_time"], counted["refused"], counted["failed"]) == (1 / 8, 3 / 8, 4 / 8)
    nobody = asyncio.run(send(f"http://127.0.0.1:{free_port()}/", parcels, np.zeros(3), 1.0))
    assert summary(nobody, 1.0)["failed"] == 1
    assert summary(nobody, 1.0)["accepted_in_time"] is None
    assert summary(nobody, 1.0)["latency_ms"] is None


def test_the_summary_against_numbers_by_hand():
    answer = [{"name": "exit", "data": [0, 2]}, {"name": "label", "data": ["a", "b"]}]
    body = json.dumps({"outputs": answer}).encode()
    parcels = [Parcel(b"", {}, ("a", "a")), Parcel(b"", {}), Parcel(b"", {}), Parcel(b"", {})]
    seconds, status = np.array([0.1, 0.3, np.nan, 0.2]), np.array([200, 200, 503, 200])
    replies = Replies(np.array([0.0, 1, 2, 4]), np.zeros(4), seconds, status, [body] * 4, parcels, 5.0)
    found = summary(replies, 0.2)
    assert (found["requests"], found["offered"], found["goodput"]) == (4, 0.75, 0.5)
    assert (found["in_time"], found["late"], found["refused"], found["failed"]) == (0.5, 0.25, 0.25, 0)
    assert math.isclose(found["accepted_in_time"], 2 / 3)
    assert found["exits"] == {"0": 0.5, "2": 0.5}
    assert found["accuracy"] == 0.5
    assert math.isclose(found["latency_ms"]["p50"], 200)
    assert summary(replies.skip(1), 0.2)["requests"] == 3
    assert "accuracy" not in summary(replies.skip(1), 0.2)


def test_an_answer_that_is_none_is_said():
    found = ask(at_once, np.zeros(1), [Parcel(b"0", {})])
    with pytest.raises(DataError, match="the answer is not of the Open Inference Protocol"):
        summary(Replies(*list(vars(found).values())[:4], [b"<html>"], found.parcels, 1.0), 1.0)


def test_a_server_of_the_protocol_says_what_it_takes():
    async def both(*how):
        served = web.Application()
        served.router.add_get("/v2/models", several)
        served.router.add_get("/v2/models/c", no)
        async with TestServer(served) as server:
            return await describe(str(server.make_url("")).rstrip("/"), *how)

    async def several(request):
        return web.json_response({"models": ["a", "b"]})

    async def no(request):
        return web.json_response({"error": "no such model"}, status=404)

    with pytest.raises(UsageError, match="does not say that it has one model: name it with --model"):
        asyncio.run(both(None))
    with pytest.raises(UsageError, match="answers 404: no such model"):
        asyncio.run(both("c"))
    with pytest.raises(UsageError, match="nobody answers at"):
        asyncio.run(describe(f"http://127.0.0.1:{free_port()}", None))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run(*words):
    found = CliRunner().invoke(app, ["load", *map(str, words), "--json"])
    assert found.exit_code == 0, found.stderr or found.exception
    return json.loads(found.stdout)


def test_the_verb_against_a_server_that_computes_nothing(tmp_path):
    (tmp_path / "times.csv").write_text("5.0\n5.1\n5.1\n5.4\n")
    found = run("--arrivals", tmp_path / "times.csv", "--deadline-ms", 5000, "--out", tmp_path / "result.json")
    assert (found["requests"], found["in_time"], found["failed"]) == (4, 1, 0)
    assert found["exits"] == {"0": 1.0}
    assert json.loads((tmp_path / "result.json").read_text()) == found


@pytest.mark.parametrize("kind", ["poisson", "fixed", "bursts"])
def test_the_verb_against_a_model(kind, tmp_path):
    """Photographs in folders by class, with a key, several in a request: right where the model says so itself."""
    import threading

    import uvicorn

    from offramp.protocol.http import build_app

    model = model_of("classification")
    model.classes = tuple("abcde")
    answers = Form(model, 64)
    with Service(model, Threshold((0.5, 0.6, 0.7))) as service:
        for seed in range(6):
            content = picture(seed)
            future = service.submit(answers.batch({"image": [content]}))[0]
            folder = tmp_path / "photos" / model.classes[int(future.result().output.argmax())]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{seed}.png").write_bytes(content)
    server = uvicorn.Server(
        uvicorn.Config(build_app(Service(model, Threshold((0.5, 0.6, 0.7))), "m", key="k"), log_level="warning")
    )
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFRAMP_KEY", "k")
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            words = (address, tmp_path / "photos", "--arrivals", kind, "--rate", 50, "--requests", 30)
            found = run(*words, "--samples", 2, "--deadline-ms", 20_000)
            assert (found["model"], found["in_time"], found["accuracy"]) == ("m", 1, 1)
            assert math.isclose(sum(found["exits"].values()), 1)
            patch.setenv("OFFRAMP_KEY", "other")
            assert run(*words, "--warm-up", 0)["failed"] == 1
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--arrivals", "often"], "there are no arrivals 'often': poisson, fixed, bursts, or a .csv file"),
        (["--arrivals", "none.csv"], "none.csv holds no arrival times"),
        (["--deadline-ms", "0"], "--deadline-ms is 0; it is above 0"),
        (["--deadline-ms", "nan"], "--deadline-ms is nan; it is above 0"),
        (["--rate", "0"], "1000 requests at 0 a second; that is one or more, at a rate above 0"),
        (["http://127.0.0.1:1", "empty"], "empty is empty"),
        (["http://127.0.0.1:1"], "nobody answers at http://127.0.0.1:1/v2/models"),
        (["http://127.0.0.1:1", "nothing.jpg"], "nothing.jpg"),
    ],
)
def test_bad_words_get_a_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["offramp", "load", *words])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_a_null_server_ends_with_its_context():
    with null_server() as address:
        assert asyncio.run(describe(address, None))["name"] == "null"
    with pytest.raises(UsageError, match="nobody answers"):
        asyncio.run(describe(address, None))
    assert build_null((1, 8, 8)).routes
