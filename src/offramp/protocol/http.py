"""A service over HTTP: the Open Inference Protocol v2 on FastAPI."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from offramp.errors import DataError, OfframpError, UsageError
from offramp.policies import policy_from_json
from offramp.protocol import frozen
from offramp.protocol.oip import HEADER, SAMPLES, STATES, Asked, Values, read_request, write_response
from offramp.serving.answer import Refused
from offramp.serving.service import Service
from offramp.versions import version

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from starlette.requests import ClientDisconnect
    from starlette.routing import BaseRoute, Route

    from offramp.protocol.front import Front, Gone, Limits, Refuse
    from offramp.serving.watch import Watch
except ImportError as error:
    raise UsageError("serving over HTTP needs more packages: pip install 'offramp[serve]'") from error

_LOG = logging.getLogger("offramp")
_EXTENSIONS = ["binary_tensor_data", "schedule_policy", "early_exit"]


Answering = Callable[[Asked, float, Gone], Awaitable[dict[str, Values]]]
Beside = Callable[[Front], AbstractAsyncContextManager[Any]]
"""Another protocol that is served as long as the application lives."""


def build_app(
    service: Service,
    name: str,
    limits: Limits | None = None,
    key: str | None = None,
    beside: Sequence[Beside] = (),
    watch: Watch | None = None,
) -> FastAPI:
    """An ASGI application that answers for one model; the service is closed when the server stops.

    Args:
        service: what computes.
        name: the model's name in the paths.
        limits: what is refused at once.
        key: that callers have to send, as ``Authorization: Bearer KEY``; anybody may call if not given.
        beside: other protocols for the same service, such as ``grpc_beside`` makes.
        watch: of the service's promise; it is shown among the metrics, and closed with the service.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as others:
            for each in beside:
                await others.enter_async_context(each(front))
            with frozen():
                yield
            front.ready = False
        await front.close()
        if watch is not None:
            watch.close()

    front = Front(service, name, limits or Limits(), key)
    if watch is not None:
        front.metrics.watch(watch)
    routes = _Routes(front)
    model = f"/v2/models/{name}"
    # plain routes: FastAPI does more on the way to a function than these need
    answering: list[BaseRoute] = [
        Route(f"{model}{path}", answer, methods=["POST"])
        for path, answer in (
            ("/infer", routes.infer),
            ("/versions/1/infer", routes.infer),
            ("/from/{k:int}/infer", routes.resume),
        )
    ]
    app = FastAPI(lifespan=life, openapi_url=None, routes=answering)
    for path, answer in (
        ("/v2", routes.server),
        ("/v2/health/live", routes.live),
        ("/v2/health/ready", routes.is_ready),
        ("/v2/models", routes.models),
        (model, routes.metadata),
        (f"{model}/ready", routes.model_ready),
        (f"{model}/versions/1", routes.metadata),
        (f"{model}/versions/1/ready", routes.model_ready),
        ("/metrics", routes.numbers),
    ):
        app.add_api_route(path, answer, methods=["GET"], response_model=None)
    app.add_api_route(f"{model}/policy", routes.set_policy, methods=["PUT"], response_model=None)
    app.add_api_route(f"{model}/seconds", routes.seconds, methods=["GET"], response_model=None)
    app.add_api_route("/v2/probe", routes.probe, methods=["POST"], response_model=None)

    @app.exception_handler(404)
    async def nothing(request: Request, _: Exception) -> Response:
        return _error(404, f"there is nothing at {request.url.path}; the model is called {name!r}")

    return app


def run_app(
    app: FastAPI,
    host: str,
    port: int,
    certificate: Path | None = None,
    private_key: Path | None = None,
    client_authority: Path | None = None,
    seconds: float = Limits.seconds,
) -> None:
    """Serve an application until SIGTERM or SIGINT; requests that were begun are answered first.

    Args:
        app: from ``build_app``.
        host: the address to listen at.
        port: the port.
        certificate: for HTTPS, with ``private_key``.
        private_key: of the certificate.
        client_authority: callers have to show a certificate of it, if it is given.
        seconds: that callers have then to send the rest and to take their answer, after which they are cut off.

    Raises:
        UsageError: a certificate without its key, or an authority without a certificate.
    """
    if (certificate is None) != (private_key is None) or (client_authority is not None and certificate is None):
        raise UsageError("HTTPS needs a certificate and its private key, and a client authority goes with them")
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
        ssl_ca_certs=None if client_authority is None else str(client_authority),
        ssl_cert_reqs=ssl.CERT_NONE if client_authority is None else ssl.CERT_REQUIRED,
        timeout_graceful_shutdown=math.ceil(seconds),
    )


class _Routes:
    """What stands behind the paths."""

    def __init__(self, front: Front) -> None:
        self.front = front

    def server(self) -> dict[str, Any]:
        return {"name": "offramp", "version": version(), "extensions": _EXTENSIONS}

    def live(self) -> dict[str, bool]:
        return {"live": True}

    def is_ready(self) -> Response:
        return _said({"ready": self.front.ready}, 200 if self.front.ready else 503)

    def model_ready(self) -> Response:
        return _said({"name": self.front.name, "ready": self.front.ready}, 200 if self.front.ready else 503)

    def models(self) -> dict[str, list[str]]:
        return {"models": [self.front.name]}

    def metadata(self) -> dict[str, Any]:
        return self.front.form.metadata(self.front.name)

    def numbers(self) -> Response:
        text, kind = self.front.metrics.text()
        return Response(text, media_type=kind)

    async def set_policy(self, request: Request) -> Response:
        """Another policy, as ``offramp calibrate`` writes it, from the next batch on."""
        try:
            self._check_key(request)
            self.front.service.set_policies(policy_from_json(_json(await self._body(request))))
        except Refuse as error:
            return _error(error.status, str(error))
        except OfframpError as error:
            return _error(400, str(error))
        return _said({"name": self.front.name, "ready": self.front.ready}, 200)

    def seconds(self) -> dict[str, dict[str, float]]:
        """What a sample alone takes from one exit that is asked to the next, as it is now."""
        return {"seconds": {str(k): line.seconds(1) for k, line in self.front.service.scheduler.lines.items()}}

    async def probe(self, request: Request) -> Response:
        """Take bytes and say nothing: how long that takes tells a caller what the way here is like."""
        try:
            self._check_key(request)
            await self._body(request)
        except Refuse as error:
            return _error(error.status, str(error))
        return Response(status_code=204)

    async def infer(self, request: Request) -> Response:
        return await self._told(request, SAMPLES, self.front.outputs)

    async def resume(self, request: Request) -> Response:
        """Samples that were computed up to exit ``k`` elsewhere."""
        k = request.path_params["k"]

        async def resumed(asked: Asked, begun: float, gone: Gone) -> dict[str, Values]:
            return await self.front.resumed(asked, k, begun, gone)

        return await self._told(request, STATES, resumed)

    async def _told(self, request: Request, kinds: Sequence[str], answer_of: Answering) -> Response:
        """An answer, or what became of the request otherwise."""
        with self.front.metrics.request() as told:
            try:
                answer = await self._answered(request, kinds, answer_of)
                told.outcome = "ok"
                return answer
            except Refuse as error:
                told.outcome = "rejected"
                return _error(error.status, str(error))
            except Refused as error:
                told.outcome = "rejected"
                return _error(503, str(error), {"Retry-After": "1"})
            except OfframpError as error:
                told.outcome = "rejected"
                return _error(400, str(error))
            except Exception as error:  # whatever a batch failed of; those who were not in it go on
                _LOG.exception("a request could not be answered")
                return _error(500, f"this could not be computed: {type(error).__name__}")

    async def _answered(self, request: Request, kinds: Sequence[str], answer_of: Answering) -> Response:
        begun = self.front.service.clock()
        self._check_key(request)
        with self.front.place():
            asked = read_request(await self._body(request), _header(request.headers), kinds)
            outputs = await answer_of(asked, begun, partial(_gone, request))
        body, headers = write_response(asked, self.front.name, outputs, {})
        return Response(body, headers=headers)

    def _check_key(self, request: Request) -> None:
        self.front.check_key(request.headers.get("authorization", ""))

    async def _body(self, request: Request) -> bytes:
        """All of the body, as long as it is no longer than is allowed, whatever it says of its length."""
        sentence = f"a request has at most {self.front.limits.body} bytes"
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refuse(415, "compressed requests are not read")
        length = request.headers.get("content-length", "0")
        if not _is_size(length) or int(length) > self.front.limits.body:
            raise Refuse(413, sentence)
        parts, found = [], 0
        seconds = self.front.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    found += len(part)
                    if found > self.front.limits.body:
                        raise Refuse(413, sentence)
                    parts.append(part)
        except ClientDisconnect as error:
            raise Refuse(499, "the caller went away") from error
        except TimeoutError as error:
            raise Refuse(408, f"the request did not come within {seconds:g} s") from error
        return b"".join(parts)


async def _gone(request: Request) -> None:
    """Come back when the caller has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _header(headers: Mapping[str, str]) -> int | None:
    said = headers.get(HEADER.lower())
    if said is None:
        return None
    if not _is_size(said):
        raise DataError(f"{HEADER} is {said[:20]!r}; it is a number of bytes")
    return int(said)


def _is_size(said: str) -> bool:
    return said.isascii() and said.isdecimal() and len(said) < 19


def _json(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError("the request is no JSON") from error
    if not isinstance(said, dict):
        raise DataError("a policy is a JSON object")
    return said


def _said(what: Any, status: int) -> Response:
    return Response(json.dumps(what), status, media_type="application/json")


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    answer = _said({"error": sentence}, status)
    answer.headers.update(headers or {})
    return answer
