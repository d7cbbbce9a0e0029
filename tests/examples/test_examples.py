"""The examples run one file: Python, Node, a page in headless Chromium, C++. What is not installed is skipped."""

from __future__ import annotations

import functools
import http.server
import json
import queue
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import offramp
from offramp.artifact import load_artifact
from offramp.engine import open_runtime

pytestmark = pytest.mark.slowest

EXAMPLES = Path(__file__).parents[2] / "examples"

WATCH = """
<iframe id="page" src="index.html?photo=photo.jpg"></iframe>
<script>
  const waiting = setInterval(() => {
    const answer = document.getElementById("page").contentDocument.getElementById("answer")?.textContent ?? "";
    if (!/score|not work/.test(answer)) return;
    clearInterval(waiting);
    fetch("answer", { method: "POST", body: answer });
  }, 100);
</script>
"""
"""Waits until the example has an answer, and tells it to the server."""


def needs(condition: object, what: str) -> None:
    if not condition:
        pytest.skip(what)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """The model in the box as a file that takes pictures, two photographs, and what this library says of them."""
    folder = tmp_path_factory.mktemp("boxed")
    artifact = load_artifact("cifar10")
    offramp.export_onnx(artifact.model, folder / "model.onnx", artifact.policy, preprocess=True)
    session = open_runtime("onnxruntime").open(folder / "model.onnx")
    expected = {}
    for name in load_sample_images().filenames:
        photo = folder / Path(name).name
        shutil.copy(name, photo)
        image = Image.open(photo)
        image.save(photo.with_suffix(".ppm"))
        trace = session(artifact.model.input.raw(image))
        label = artifact.model.classes[int(trace.output.argmax())]
        expected[photo.name] = (label, int(trace.exit), float(trace.score), int(trace.output.argmax()))
    return folder, expected


def test_python_without_torch(boxed):
    folder, expected = boxed
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'timm', 'offramp', 'onnx']))"
    program = f"{blocked}; import runpy; runpy.run_path('predict.py', run_name='__main__')"
    command = [sys.executable, "-c", program, folder / "model.onnx", *(folder / name for name in expected)]
    done = subprocess.run(command, cwd=EXAMPLES / "python", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    found = [(r["label"], r["exit"], pytest.approx(r["score"], abs=1e-4)) for r in rows]
    assert found == [(label, exit, score) for label, exit, score, _ in expected.values()]


def test_node(boxed):
    folder, expected = boxed
    needs(shutil.which("node"), "Node is not installed")
    needs((EXAMPLES / "node/node_modules").exists(), "onnxruntime-node is not installed: npm install in examples/node")
    command = ["node", "predict.mjs", folder / "model.onnx", *(folder / name for name in expected)]
    done = subprocess.run(command, cwd=EXAMPLES / "node", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["label"] for r in rows] == [label for label, *_ in expected.values()]
    for row, (_, exit, score, _) in zip(rows, expected.values(), strict=True):
        assert (row["exit"], row["score"]) == (exit, pytest.approx(score, abs=0.02)), "another JPEG decoder"


def test_the_page(boxed, tmp_path):
    folder, expected = boxed
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    needs(chromium, "Chromium is not installed")
    needs((EXAMPLES / "web/node_modules").exists(), "onnxruntime-web is not installed: npm install in examples/web")
    for name in ("index.html", "node_modules"):
        (tmp_path / name).symlink_to(EXAMPLES / "web" / name)
    (tmp_path / "model.onnx").symlink_to(folder / "model.onnx")
    (tmp_path / "photo.jpg").symlink_to(folder / "china.jpg")

    (tmp_path / "watch.html").write_text(WATCH)
    answers: queue.Queue[str] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            answers.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        own = f"--user-data-dir={tmp_path / 'browser'}"
        address = f"http://127.0.0.1:{server.server_port}/watch.html"
        browser = subprocess.Popen([chromium, *options, own, address], stderr=subprocess.DEVNULL)
        try:
            answer = answers.get(timeout=100)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    label, exit, score, _ = expected["china.jpg"]
    found = re.fullmatch(r"(\w+), score ([\d.]+), exit (\d+), [\d.]+ ms", answer)
    assert found, answer
    assert (found[1], int(found[3])) == (label, exit)
    assert float(found[2]) == pytest.approx(score, abs=0.02)


def test_cpp(boxed, tmp_path):
    folder, expected = boxed
    compiler = shutil.which("c++")
    needs(compiler, "a C++ compiler is not installed")
    probe = subprocess.run(
        [compiler, "-E", "-x", "c++", "-"], input="#include <onnxruntime_cxx_api.h>", capture_output=True, text=True
    )
    needs(probe.returncode == 0, "ONNX Runtime's C++ headers are not on the compiler's path")
    program = tmp_path / "predict"
    source = EXAMPLES / "cpp/predict.cpp"
    subprocess.run([compiler, "-std=c++17", source, "-lonnxruntime", "-o", program], check=True)
    photos = [(folder / name).with_suffix(".ppm") for name in expected]
    done = subprocess.run([program, folder / "model.onnx", *photos], capture_output=True, text=True, check=True)
    classes = [int(c) for c in re.findall(r"class (\d+)", done.stdout)]
    assert np.array_equal(classes, [answer for *_, answer in expected.values()])
