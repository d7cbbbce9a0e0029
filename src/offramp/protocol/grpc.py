"""The same service over gRPC, by the definition that the Open Inference Protocol's working group publishes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import DataError, OfframpError, UsageError
from offramp.protocol.front import Front, Refuse
from offramp.protocol.http import Beside
from offramp.protocol.oip import Asked, Values, data_type, packed, unpacked
from offramp.serving.answer import Refused
from offramp.versions import version

try:
    import grpc
    from open_inference.grpc import protocol as words
    from open_inference.grpc import service as definition
except ImportError as error:
    raise UsageError("serving over gRPC needs more packages: pip install 'offramp[grpc]'") from error

_LOG = logging.getLogger("offramp")
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def grpc_beside(
    host: str,
    port: int,
    certificate: Path | None = None,
    private_key: Path | None = None,
    client_authority: Path | None = None,
) -> Beside:
    """For ``build_app``: gRPC at another port, as long as the application lives.

    Args:
        host: the address to listen at.
        port: the port.
        certificate: for TLS, with ``private_key``.
        private_key: of the certificate.
        client_authority: callers have to show a certificate of it, if it is given.
    """

    @asynccontextmanager
    async def beside(front: Front) -> AsyncIterator[None]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", front.limits.body)])
        definition.add_GRPCInferenceServiceServicer_to_server(_Answers(front), server)
        where = f"{host}:{port}"
        try:
            if certificate is None or private_key is None:
                server.add_insecure_port(where)
            else:
                authority = None if client_authority is None else client_authority.read_bytes()
                pair = [(private_key.read_bytes(), certificate.read_bytes())]
                asks = grpc.ssl_server_credentials(pair, authority, authority is not None)
                server.add_secure_port(where, asks)
        except RuntimeError as error:
            raise UsageError(f"gRPC cannot listen at {where}") from error
        await server.start()
        try:
            yield
        finally:
            await server.stop(front.limits.seconds)

    return beside


class _Answers(definition.GRPCInferenceServiceServicer):
    """What stands behind the calls; those of the protocol, and none that only Triton has."""

    def __init__(self, front: Front) -> None:
        self.front = front

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return words.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return words.ServerReadyResponse(ready=self.front.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        await self._check_name(request.name, context)
        return words.ModelReadyResponse(ready=self.front.ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return words.ServerMetadataResponse(name="offramp", version=version(), extensions=["early_exit"])

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        await self._check_name(request.name, context)
        return words.ModelMetadataResponse(**self.front.form.metadata(self.front.name))

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        await self._check_name(request.model_name, context)
        with self.front.metrics.request() as told:
            told.outcome = "rejected"
            try:
                answer = await self._infer(request, context)
                told.outcome = "ok"
                return answer
            except Refuse as error:
                code, sentence = _CODES.get(error.status, grpc.StatusCode.UNKNOWN), str(error)
            except Refused as error:
                code, sentence = grpc.StatusCode.UNAVAILABLE, str(error)
            except OfframpError as error:
                code, sentence = grpc.StatusCode.INVALID_ARGUMENT, str(error)
            except Exception as error:
                _LOG.exception("a request could not be answered")
                told.outcome = "error"
                code, sentence = grpc.StatusCode.INTERNAL, f"this could not be computed: {type(error).__name__}"
        await context.abort(code, sentence)

    async def _infer(self, request: Any, context: Any) -> Any:
        begun = self.front.service.clock()
        self.front.check_key(dict(context.invocation_metadata() or ()).get("authorization", ""))
        with self.front.place():
            asked = _asked(request, context.time_remaining())
            outputs = await self.front.outputs(asked, begun, _never)
        if unknown := [name for name in asked.wanted if name not in outputs]:
            raise DataError(f"there is no output {unknown[0]!r}; there are {', '.join(outputs)}")
        chosen = {name: outputs[name] for name in asked.wanted or outputs}
        about = [
            {"name": name, "datatype": data_type(values), "shape": np.shape(values)} for name, values in chosen.items()
        ]
        raw = [packed(values) for values in chosen.values()]
        return words.ModelInferResponse(
            model_name=self.front.name, model_version="1", id=request.id, outputs=about, raw_output_contents=raw
        )

    async def _check_name(self, name: str, context: Any) -> None:
        if name != self.front.name:
            sentence = f"there is no model {name!r}; the model is called {self.front.name!r}"
            await context.abort(grpc.StatusCode.NOT_FOUND, sentence)


def _asked(request: Any, left: float | None) -> Asked:
    """A request in the words of all protocols; the call's own deadline, in seconds, is one of its limits."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise DataError(f"{len(raw)} raw contents for {len(request.inputs)} inputs")
    inputs: dict[str, Values] = {}
    for place, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise DataError(f"input {tensor.name!r} is there twice")
        inputs[tensor.name] = _values(tensor, raw[place] if raw else None)
    parameters = {name: getattr(said, said.WhichOneof("parameter_choice")) for name, said in request.parameters.items()}
    if left is not None and 0 < left < math.inf:
        parameters["deadline_ms"] = min(1e3 * left, parameters.get("deadline_ms", math.inf))
    return Asked(request.id, inputs, parameters, {output.name: True for output in request.outputs}, True)


def _values(tensor: Any, raw: bytes | None) -> Values:
    shape = list(tensor.shape)
    if raw is not None:
        return unpacked(tensor.name, tensor.datatype, shape, raw)
    if tensor.datatype == "BYTES":
        files = list(tensor.contents.bytes_contents)
        if len(files) != math.prod(shape):
            raise DataError(f"input {tensor.name!r} has {len(files)} values, and its shape is {shape}")
        return files
    return unpacked(tensor.name, tensor.datatype, shape, np.array(tensor.contents.fp32_contents, "<f4").tobytes())


async def _never() -> None:
    """gRPC cancels the call itself when its caller has gone away."""
    await asyncio.Event().wait()
