"""The static model behind FastAPI: batches of whoever waits, and nobody computed whose time is up.

``python -m benchmarks.serving.static MODEL PORT THREADS BATCH``
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.serving.network import Network
from offramp.protocol import frozen
from offramp.protocol.oip import HEADER, read_request, write_response


def build(network: Network, largest: int) -> FastAPI:
    """An application that answers one sample a request."""
    waiting: asyncio.Queue[tuple[torch.Tensor, float, asyncio.Future[torch.Tensor | None]]] = asyncio.Queue()
    computer, decoder = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    async def compute() -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await waiting.get()]
            while len(batch) < largest and not waiting.empty():
                batch.append(waiting.get_nowait())
            now = time.perf_counter()
            for _, deadline, future in batch:
                if deadline < now:
                    future.set_result(None)
            batch = [each for each in batch if each[1] >= now]
            if batch:
                outputs = await loop.run_in_executor(computer, network.outputs, torch.cat([x for x, *_ in batch]))
                for (_, _, future), output in zip(batch, outputs, strict=True):
                    future.set_result(output)

    @asynccontextmanager
    async def life(_: FastAPI) -> Any:
        task = asyncio.ensure_future(compute())
        yield
        task.cancel()

    app = FastAPI(lifespan=life, openapi_url=None)

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v2/models/m/infer", response_model=None)
    async def infer(request: Request) -> Response:
        begun, loop = time.perf_counter(), asyncio.get_running_loop()
        header = request.headers.get(HEADER.lower())
        asked = read_request(await request.body(), None if header is None else int(header))
        x = await loop.run_in_executor(decoder, network.form.batch, asked.inputs)
        future: asyncio.Future[torch.Tensor | None] = loop.create_future()
        waiting.put_nowait((x, begun + asked.parameters["timeout"] / 1e6, future))
        output = await future
        if output is None:
            return Response(status_code=503)
        said = {"output": output[None].numpy(), "label": [network.label(output).encode()]}
        body, headers = write_response(asked, "m", said, {})
        return Response(body, headers=headers)

    return app


if __name__ == "__main__":
    name, port, threads, largest = sys.argv[1], *map(int, sys.argv[2:])
    app = build(Network(name, threads), largest)
    with frozen():
        uvicorn.run(app, port=port, log_level="warning")
