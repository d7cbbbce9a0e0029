"""A server that computes nothing: what asking it takes is what HTTP and the asking take."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from offramp.errors import UsageError
from offramp.protocol import frozen
from offramp.protocol.oip import HEADER, read_request, write_response

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from starlette.routing import Route
except ImportError as error:
    raise UsageError("serving over HTTP needs more packages: pip install 'offramp[serve]'") from error

NAME = "null"


def build_null(shape: tuple[int, ...] = (3, 224, 224)) -> FastAPI:
    """An ASGI application that reads a request as the server of a model does, and answers the same at once.

    Args:
        shape: of a sample, as its metadata says it; files are taken too.
    """
    about = [
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
        {"name": "images", "datatype": "FP32", "shape": [-1, *shape]},
    ]

    async def infer(request: Request) -> Response:
        header = request.headers.get(HEADER.lower())
        asked = read_request(await request.body(), None if header is None else int(header))
        n = len(next(iter(asked.inputs.values())))
        body, headers = write_response(asked, NAME, {"exit": np.zeros(n, np.int32)}, {})
        return Response(body, headers=headers)

    app = FastAPI(openapi_url=None, routes=[Route(f"/v2/models/{NAME}/infer", infer, methods=["POST"])])

    @app.get("/v2/models")
    async def models() -> dict[str, list[str]]:
        return {"models": [NAME]}

    @app.get(f"/v2/models/{NAME}")
    async def metadata() -> dict[str, Any]:
        return {"name": NAME, "versions": ["1"], "platform": "offramp_null", "inputs": about, "outputs": []}

    return app


@contextmanager
def null_server() -> Iterator[str]:
    """A process of its own with such a server, as long as the context lasts; what it yields is its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(listening,), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


def _serve(listening: socket.socket) -> None:
    server = uvicorn.Server(uvicorn.Config(build_null(), log_level="warning"))
    with frozen():
        server.run([listening])
