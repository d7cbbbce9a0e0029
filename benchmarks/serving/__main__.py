"""The command: servers in turn, load by load, and a picture."""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import offramp
from benchmarks import RESULTS, publish
from benchmarks.serving import __doc__ as summary_of_this
from benchmarks.serving.network import Network
from benchmarks.serving.picture import draw
from benchmarks.serving.servers import Server, free_port
from offramp._progress import say
from offramp.artifact import load_artifact, save
from offramp.data import Samples
from offramp.engine import open_runtime
from offramp.pipeline import open_for
from offramp.protocol import frozen
from offramp.protocol.form import Form
from offramp.protocol.load import Parcel, parcels_of, send, summary
from offramp.protocol.null import null_server
from offramp.serving.arrivals import PROCESSES

_PAUSE = 0.025
"""Seconds between requests at about a quarter of the load: caches hold other things by then."""


def main() -> None:
    parser = argparse.ArgumentParser(description=summary_of_this, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10", help="a saved model, or one in the box")
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-drop", type=float, default=0.01, help="what the policy may lose, on validation")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.25, 0.5, 1.0, 1.5, 2.0])
    parser.add_argument("--arrivals", nargs="+", choices=list(PROCESSES), default=list(PROCESSES))
    parser.add_argument(
        "--deadline-ms", type=float, help="eight times what the static model takes for one if not given"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--batch", type=int, default=16, help="samples in a batch, of all servers")
    parser.add_argument("--images", type=int, default=2000, help="of the test split, which are asked about in turn")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    artifact = load_artifact(args.model)
    splits = open_for(artifact, args.data)
    assert artifact.table is not None
    assert artifact.costs is not None
    policy = offramp.calibrate(artifact.table, artifact.costs, max_drop=args.max_drop)
    assert artifact.model.classes is not None
    chosen = np.random.default_rng(0).permutation(len(splits.test))[: args.images]
    files = _files(splits.test.take(chosen), artifact.model.classes)
    bare = _bare(args.model, policy, args.threads, args.batch, [file for file, _ in files])
    deadline = args.deadline_ms or 8 * bare["static_ms"]
    about = {"name": "m", "inputs": [{"name": Form(artifact.model, 1).file, "datatype": "BYTES"}]}
    parcels = parcels_of(about, files, 1, {"timeout": round(deadline * 1e3)})
    rows = []
    with ExitStack() as open_:
        words = [args.model, "{port}", str(args.threads), str(args.batch)]
        asked = {
            "fastapi": (["-m", "benchmarks.serving.static", *words], parcels),
            "litserve": (
                ["-m", "benchmarks.serving.lit", *words, str(deadline / 1e3)],
                [_in_json(file, truth, about) for file, truth in files],
            ),
            "offramp": (_offramp(artifact, policy, args, open_), parcels),
        }
        servers = {}
        for name, (command, own) in asked.items():
            port = free_port()
            servers[name] = opened = Server([w.format(port=port) for w in command], port)
            open_.callback(opened.close)
            url = f"{opened.address}/v2/models/m/infer"
            asyncio.run(send(url, own, np.arange(100) * 0.05, 30))
            with opened.running():
                pass
        null = f"{open_.enter_context(null_server())}/v2/models/null/infer"
        asyncio.run(send(null, parcels, np.zeros(50), 30, 1))
        open_.enter_context(frozen())
        for kind in args.arrivals:
            for load in args.loads:
                rate = load * bare["static_per_second"]
                due = PROCESSES[kind](rate, max(2, round(rate * args.seconds)), 0)
                for name in (*servers, "null"):
                    url = null if name == "null" else f"{servers[name].address}/v2/models/m/infer"
                    own = parcels if name == "null" else asked[name][1]
                    with nullcontext() if name == "null" else servers[name].running():
                        replies = asyncio.run(send(url, own, due, 10 * deadline / 1e3))
                        time.sleep(1.0)  # what is late is done meanwhile
                    row = {"server": name, "arrivals": kind, "load": load, **summary(replies, deadline / 1e3)}
                    rows.append(row)
                    say(json.dumps({k: row[k] for k in ("server", "arrivals", "load", "in_time", "latency_ms")}))
    settings = {
        "model": args.model,
        "data": splits.record,
        "deadline_ms": deadline,
        "batch": args.batch,
        "threads": args.threads,
        "runtime": "torch",
        "seconds": args.seconds,
        "max_drop": args.max_drop,
    }
    publish("serving", {"settings": settings, "bare": bare, "rows": rows})
    draw(rows, deadline, RESULTS / "serving.png")


def _bare(name: str, policy: Any, threads: int, largest: int, files: Sequence[bytes]) -> dict[str, float]:
    """Both models without a server, in turn, for one file after the other; medians.

    Returns:
        milliseconds of reading a file, and of either model on it alone, of ours also after a pause; and
        ``static_per_second``, samples a second in batches.
    """
    network = Network(name, threads)
    session = open_runtime("torch", "fp32", threads).dynamic(network.model, policy)
    many = network.model.input.example(largest)
    ways: dict[str, Callable[[Any, Any], Any]] = {
        "read_ms": lambda file, x: network.form.batch({network.form.file: [file]}),
        "static_ms": lambda file, x: network.outputs(x),
        "dynamic_ms": lambda file, x: session(x),
        "static_per_second": lambda file, x: network.outputs(many),
        "paused_ms": lambda file, x: session(x),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn, file in enumerate(files[:160]):
        x = network.form.batch({network.form.file: [file]})
        for way, call in ways.items():
            if way == "paused_ms":
                time.sleep(_PAUSE)
            begun = time.perf_counter()
            call(file, x)
            if turn >= 10:
                seconds[way].append(time.perf_counter() - begun)
    middle = {way: statistics.median(own) for way, own in seconds.items()}
    batch = middle.pop("static_per_second")
    return {**{way: 1e3 * own for way, own in middle.items()}, "static_per_second": largest / batch}


def _offramp(artifact: Any, policy: Any, args: argparse.Namespace, open_: ExitStack) -> list[str]:
    """Our own command, with a policy in a file."""
    folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
    save(artifact.model, folder / "m", policy=policy, costs=artifact.costs)
    words = ["-m", "offramp", "serve", str(folder / "m"), "--port", "{port}", "--batch", str(args.batch)]
    return [*words, "--threads", str(args.threads), "--device", "cpu"]


def _files(samples: Samples, classes: tuple[str, ...]) -> list[tuple[bytes, str | None]]:
    """Samples as PNG files, each with the name of its class."""
    found: list[tuple[bytes, str | None]] = []
    for i in range(len(samples)):
        image, file = samples.read(i), io.BytesIO()
        assert isinstance(image, Image.Image)
        image.save(file, "png")
        found.append((file.getvalue(), classes[int(samples.targets[i])]))
    return found


def _in_json(file: bytes, truth: str | None, about: dict[str, Any]) -> Parcel:
    """A request for a server that reads JSON alone."""
    name = about["inputs"][0]["name"]
    tensor = {"name": name, "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(file).decode()]}
    body = json.dumps({"inputs": [tensor]}).encode()
    return Parcel(body, {"Content-Type": "application/json"}, () if truth is None else (truth,))


if __name__ == "__main__":
    main()
