"""A model in two places over a narrow way: what each split takes, sends and answers, at several bandwidths.

``offramp serve`` runs in a process of its own; a relay on the loopback lets so many bits a second through, and holds
each byte back for a while. What computes here is slowed down to stand for a smaller machine: after each part it sleeps.
Each image goes through all splits in turn; ``auto`` is what ``offramp edge`` would choose, from what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import publish
from benchmarks.serving.servers import Server, free_port
from offramp._progress import say, track
from offramp.artifact import load_artifact
from offramp.engine import TorchRuntime
from offramp.engine.loop import Segments
from offramp.model import EarlyExitModel
from offramp.pipeline import open_for
from offramp.policies import replay
from offramp.protocol.edge import Edge
from offramp.protocol.split import NOTHING, expected_seconds, seconds_here, seconds_there, way_to
from offramp.report import bootstrap_interval

_CHUNK = 1448
"""Bytes that go through the relay at once."""


class Slow:
    """Segments on a machine that takes ``factor`` times as long."""

    def __init__(self, segments: Segments, factor: float) -> None:
        self._segments, self._factor = segments, factor
        self.chain = segments.chain

    def __getattr__(self, name: str) -> Any:
        plain = getattr(self._segments, name)

        def slowly(*given: Any) -> Any:
            begun = time.perf_counter()
            found = plain(*given)
            time.sleep((self._factor - 1) * (time.perf_counter() - begun))
            return found

        return slowly


class SlowTorch(TorchRuntime):
    """PyTorch on such a machine."""

    factor = 1.0

    def segments(self, model: EarlyExitModel) -> Any:
        """The model in pieces that take longer."""
        return Slow(super().segments(model), self.factor)


@contextmanager
def relay(port: int, bits: float, delay: float) -> Iterator[str]:
    """An address of this machine that leads to a port, so many bits a second each way, each byte held back."""
    ready, told = threading.Event(), dict[str, Any]()

    async def move(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        free, waiting = 0.0, asyncio.Queue[tuple[float, bytes]](64)

        async def hand_on() -> None:
            while True:
                due, data = await waiting.get()
                if not data:
                    return
                await asyncio.sleep(max(due - time.perf_counter(), 0.0))
                target.write(data)
                await target.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(hand_on())
            while data := await source.read(_CHUNK):
                free = max(free, time.perf_counter()) + 8 * len(data) / bits
                await waiting.put((free + delay, data))
            await waiting.put((0.0, b""))

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        ways = [asyncio.ensure_future(move(reader, back)), asyncio.ensure_future(move(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (back, writer):
                end.close()

    async def serve() -> None:
        server = await asyncio.start_server(both, "127.0.0.1", 0)
        told.update(port=server.sockets[0].getsockname()[1], loop=asyncio.get_running_loop(), stop=asyncio.Event())
        ready.set()
        await told["stop"].wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{told['port']}"
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10", help="a saved model of one path, or one in the box")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--megabits", type=float, nargs="+", default=[1.0, 10.0, 100.0])
    parser.add_argument("--delay-ms", type=float, default=5.0, help="each way")
    parser.add_argument("--slower", type=float, default=8.0, help="times that this machine takes of what it takes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    artifact = load_artifact(args.model)
    model, policy = artifact.model, artifact.policy
    assert policy is not None
    assert artifact.table is not None
    splits = open_for(artifact, args.data)
    chosen = splits.test.take(np.random.default_rng(0).permutation(len(splits.test))[: args.images])
    files = [_png(chosen.read(i)) for i in range(len(chosen))]
    prepare = model.input.transform()
    images = [prepare(model.input.read(io.BytesIO(file)))[None] for file in files]
    SlowTorch.factor, final = args.slower, len(model.exits)
    runtime, places = SlowTorch(), (NOTHING, *policy.heads, final)
    port, name = free_port(), Path(args.model).name
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = [
        "-m",
        "offramp",
        "serve",
        args.model,
        "--port",
        str(port),
        "--device",
        "cpu",
        "--threads",
        str(args.threads),
    ]
    server, rows = Server(words, port), []
    try:
        trace = replay(policy, artifact.table, model.task)
        here = seconds_here(model, policy, runtime)
        for megabits in args.megabits:
            with relay(port, 1e6 * megabits, args.delay_ms / 1e3) as url:
                edges = {k: Edge(model, policy, url, name, k, runtime) for k in places}
                sizes = {k: float(edges[k].size()) for k in policy.heads} | {final: 0.0}
                sizes[NOTHING] = float(np.mean([len(file) for file in files]))
                way = way_to(url)
                found = expected_seconds(trace, policy.heads, here, seconds_there(url, name), sizes, way)
                answers: dict[int, list[Any]] = {k: [] for k in places}
                for x, file in track(zip(images, files, strict=True), f"{megabits:g} Mbit/s", len(images)):
                    for k, edge in edges.items():
                        answers[k].append(edge.answer(x, 30.0, file))
                for edge in edges.values():
                    edge.__exit__()
            best = min(found, key=lambda k: found[k])
            for k, own in answers.items():
                rows.append(
                    {
                        "megabits": megabits,
                        "split": k,
                        "auto": k == best,
                        "expected_ms": 1e3 * found[k],
                        **_row(own, chosen.targets, model),
                    }
                )
                say(str(rows[-1]))
            rows[-1]["way"] = {
                "round_trip_ms": 1e3 * way.round_trip,
                "megabits": 8e-6 / way.per_byte if way.per_byte else None,
            }
    finally:
        server.close()
    settings = {**vars(args), "data": splits.record, "exits_asked": policy.heads, "final": final}
    publish("edge", {"settings": settings, "rows": rows})


def _row(answers: list[Any], targets: np.ndarray, model: EarlyExitModel) -> dict[str, Any]:
    outputs = torch.stack([a.output for a in answers])
    right = (model.task.answer(outputs).numpy() == targets).astype(float)
    milliseconds = 1e3 * np.array([a.seconds for a in answers])
    return {
        "accuracy": float(right.mean()),
        "accuracy_interval": bootstrap_interval(right),
        "sent_bytes": float(np.mean([a.sent for a in answers])),
        "mean_ms": float(milliseconds.mean()),
        **{f"p{q}_ms": float(np.quantile(milliseconds, q / 100)) for q in (50, 95)},
        "where": {
            place: sum(a.where == place for a in answers) / len(answers) for place in ("here", "server", "cut off")
        },
    }


def _png(image: Any) -> bytes:
    assert isinstance(image, Image.Image)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    main()
