"""The page of a server, in a browser: a file is answered, the slider moves, and nothing is fetched elsewhere."""

import io
import json
import re
import shutil
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest
import uvicorn
from helpers import model_of
from PIL import Image

import offramp
from offramp.cost import profile
from offramp.data import Samples
from offramp.policies.patience import Patience
from offramp.policies.threshold import Threshold
from offramp.protocol.http import build_app
from offramp.protocol.page import add_page, frontier
from offramp.serving import Service

pytestmark = pytest.mark.slow

POLICY = Threshold((0.3, None, 0.35))


def picture(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def made():
    """A model, its table on random pictures, its costs."""
    model = model_of("classification")
    model.classes = ("a", "b", "c", "d", "<e>")
    x, targets = model.input.example(60), np.arange(60) % 5
    table = offramp.tabulate(
        model, offramp.data.loader(Samples(list(x).__getitem__, targets, prepared=True), model.input)
    )
    return model, table, profile(model, repeats=0)


def test_the_frontier_is_what_replay_says(made):
    model, table, costs = made
    points = frontier(table, costs, POLICY, model)
    assert [points[0]["threshold"], points[-1]["threshold"]] == [0, 1]
    everybody = costs.in_chain().to_exit((0, 2))
    assert points[0]["macs"] == pytest.approx(everybody[0] / costs.macs.static)
    assert points[-1]["macs"] == pytest.approx(everybody[3] / costs.macs.static)
    first = model.task.quality(table.of(0), table.targets).double().mean()
    assert points[0]["metric"] == pytest.approx(float(first))
    assert [p["macs"] for p in points] == sorted(p["macs"] for p in points)


@pytest.mark.parametrize("task", ["classification", "counting", "density", "pair"])
@pytest.mark.parametrize("policy", [POLICY, Patience(1, (0, 1, 2))], ids=["threshold", "patience"])
def test_every_kind_of_model_has_a_page(task, policy):
    from fastapi.testclient import TestClient

    model = model_of(task)
    policy = replace(policy, score=model.task.scores[0])
    app = build_app(service := Service(model, policy), "<m>")
    add_page(app, "<m>", service, examples={"<x>": b"1"})
    with TestClient(app) as client:
        answer = client.get("/")
        assert client.get("/examples/0").content == b"1"
        assert [client.get(f"/examples/{wrong}").status_code for wrong in ("1", "-1", "x")] == [404] * 3
    about = json.loads(re.search(r'id="about">(.*?)</script>', answer.text)[1])
    assert [e["exit"] for e in about["exits"]] == [*policy.heads, 3]
    assert about["examples"] == ["<x>"]
    assert "<m>" not in answer.text, "names are text, not tags"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)


@pytest.fixture
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=120_000)
        yield opened
        opened.close()


def test_in_a_browser(made, browser, tmp_path):
    model, table, costs = made
    for seed in range(2):
        (tmp_path / f"{seed}.png").write_bytes(picture(seed))
    (tmp_path / "no.png").write_bytes(b"no picture")
    prepare = model.input.transform()
    x = prepare(model.input.read(tmp_path / "0.png"))[None]
    expected = offramp.run(model, x, POLICY)
    app = build_app(service := Service(model, POLICY), "m", key="k")
    add_page(app, "m", service, table, costs, {"one": picture(1)})
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            look(browser, f"http://127.0.0.1:{listening.getsockname()[1]}/", tmp_path, model, expected)
        finally:
            server.should_exit = True
            thread.join()


def look(browser, address, folder, model, expected):
    page = browser.new_page()
    page.set_default_timeout(60_000)
    said, fetched = [], []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(address)
    page.set_input_files("#file", folder / "0.png")
    page.locator("#answer", has_text="wants a key").wait_for()
    assert page.is_visible("#locked")
    assert [text for text in said if "401" not in text] == []
    said.clear()

    page.fill("#key", "k")
    page.set_input_files("#file", [])
    page.set_input_files("#file", folder / "0.png")
    page.wait_for_selector("rect[data-exit='3']", state="attached")
    label = model.classes[int(expected.output.argmax())]
    where = int(expected.exit[0])
    name = "the end" if where == 3 else f"exit {where}"
    assert page.inner_text("#answer") == f"{label}, at {name}"
    reason = "No exit before was sure enough." if where == 3 else "reached the threshold"
    assert reason in page.inner_text("#why")
    assert "multiply-adds" in page.inner_text("#why")

    points = []
    for threshold in ("0", "1"):
        page.fill("#threshold", threshold)
        points.append(float(page.get_attribute("#point", "cx")))
        assert f"leave at {'the end' if threshold == '1' else 'exit 0'}" in page.inner_text("#instead")
    assert points[0] < points[1]

    page.set_input_files("#file", folder / "no.png")
    page.locator("#answer", has_text="did not work").wait_for()
    page.click("#examples button")
    page.locator("#answer", has_text=", at ").wait_for()
    page.wait_for_selector("rect[data-exit='3']", state="attached")
    assert [text for text in said if "400" not in text] == []
    assert {url.split("/")[2] for url in fetched if url.startswith("http")} == {address.split("/")[2]}
