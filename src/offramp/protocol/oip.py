"""The Open Inference Protocol v2, with Triton's extension for binary tensors: bytes to arrays and back."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.errors import DataError

HEADER = "Inference-Header-Content-Length"
"""The HTTP header that says how long the JSON part is, where tensors follow it."""
Values = np.ndarray | list[bytes]

_LARGEST = 2**28
"""Values of one tensor."""
_BINARY = {"Content-Type": "application/octet-stream"}
_TYPES = {"float32": "FP32", "int8": "INT8", "int32": "INT32", "int64": "INT64", "bool": "BOOL"}
_ARRAYS = {kind: np.dtype(name) for name, kind in _TYPES.items()}
SAMPLES = ("FP32", "BYTES")
"""Data types of samples."""
STATES = tuple(_ARRAYS)
"""Data types of what stands between two segments."""


@dataclass(frozen=True)
class Asked:
    """An inference request.

    Args:
        id: the caller's own; empty if there is none.
        inputs: by name, float32 arrays for ``FP32``, files or strings for ``BYTES``.
        parameters: of the request.
        wanted: the outputs that are asked for, all if empty, and whether each is wanted in binary.
        binary: whether outputs that nothing is said of are.
    """

    id: str
    inputs: Mapping[str, Values]
    parameters: Mapping[str, Any]
    wanted: Mapping[str, bool]
    binary: bool


def read_request(body: bytes, header: int | None = None, kinds: Sequence[str] = SAMPLES) -> Asked:
    """An inference request from the body of an HTTP request.

    Args:
        body: JSON, and behind it the tensors that are sent in binary.
        header: the length of the JSON, from ``HEADER``; all of it if not given.
        kinds: the data types that inputs may have.

    Raises:
        DataError: no JSON, not the protocol's form, another data type, or sizes that do not fit together.
    """
    if header is not None and not 0 <= header <= len(body):
        raise DataError(f"{HEADER} is {header}, and the body has {len(body)} bytes")
    try:
        said = json.loads(body[:header])
    except (ValueError, RecursionError) as error:
        raise DataError("the request is no JSON") from error
    tensors = said.get("inputs") if isinstance(said, dict) else None
    if not isinstance(tensors, list) or not tensors:
        raise DataError("the request has no list of inputs")
    rest = b"" if header is None else body[header:]
    inputs: dict[str, Values] = {}
    for tensor in tensors:
        name, values, rest = _tensor(tensor, rest, kinds)
        if name in inputs:
            raise DataError(f"input {name!r} is there twice")
        inputs[name] = values
    if rest:
        raise DataError(f"{len(rest)} bytes are left behind the last tensor")
    parameters = _object(said.get("parameters", {}), "parameters")
    binary = parameters.get("binary_data_output", False) is True
    outputs = said.get("outputs", [])
    if not isinstance(outputs, list):
        raise DataError("outputs is no list")
    wanted = {}
    for output in outputs:
        own = _object(output, "an output")
        more = _object(own.get("parameters", {}), "parameters")
        wanted[str(own.get("name"))] = more.get("binary_data", binary) is True
    return Asked(str(said.get("id", "")), inputs, parameters, wanted, binary)


def write_request(inputs: Mapping[str, Values], parameters: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    """The body of a request and its HTTP headers: tensors in binary, answers in JSON.

    Args:
        inputs: by name, float32 arrays or files.
        parameters: of the request.
    """
    contents = [packed(values) for values in inputs.values()]
    tensors = [
        {**_about(name, values), "parameters": {"binary_data_size": len(data)}}
        for (name, values), data in zip(inputs.items(), contents, strict=True)
    ]
    head = json.dumps({"inputs": tensors, "parameters": dict(parameters)}).encode()
    return head + b"".join(contents), _BINARY | {HEADER: str(len(head))}


def read_response(body: bytes) -> dict[str, list[Any]]:
    """What a server answered in JSON: the values of each output, flat, by name.

    Raises:
        DataError: not the protocol's form.
    """
    try:
        return {output["name"]: list(output["data"]) for output in json.loads(body)["outputs"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError("the answer is not of the Open Inference Protocol") from error


def write_response(
    asked: Asked, model: str, outputs: Mapping[str, Values], parameters: Mapping[str, Any]
) -> tuple[bytes, dict[str, str]]:
    """The body of an answer and its HTTP headers.

    Args:
        asked: the request.
        model: the model's name.
        outputs: float32, int32 or bool arrays, or strings, in the order of the samples.
        parameters: of the answer.

    Raises:
        DataError: an output that there is not.
    """
    if unknown := [name for name in asked.wanted if name not in outputs]:
        raise DataError(f"there is no output {unknown[0]!r}; there are {', '.join(outputs)}")
    tensors, binary = [], []
    for name in asked.wanted or outputs:
        values = outputs[name]
        tensor = _about(name, values)
        if asked.wanted.get(name, asked.binary):
            binary.append(packed(values))
            tensor["parameters"] = {"binary_data_size": len(binary[-1])}
        elif isinstance(values, list):
            tensor["data"] = [value.decode() for value in values]
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    said: dict[str, Any] = {"model_name": model, "parameters": dict(parameters), "outputs": tensors}
    if asked.id:
        said["id"] = asked.id
    head = json.dumps(said).encode()
    if not binary:
        return head, {"Content-Type": "application/json"}
    return head + b"".join(binary), _BINARY | {HEADER: str(len(head))}


def _tensor(said: Any, rest: bytes, kinds: Sequence[str]) -> tuple[str, Values, bytes]:
    """One input: its name, its values, and the binary part behind it."""
    tensor = _object(said, "an input")
    name, kind, shape, size = _checked(tensor.get("name"), tensor.get("datatype"), tensor.get("shape"), kinds)
    length = _object(tensor.get("parameters", {}), "parameters").get("binary_data_size")
    if length is not None:
        if type(length) is not int or not 0 <= length <= len(rest):
            raise DataError(f"input {name!r} has a binary_data_size of {length!r}, and {len(rest)} bytes are there")
        return name, unpacked(name, kind, shape, rest[:length], kinds), rest[length:]
    data = tensor.get("data")
    if not isinstance(data, list):
        raise DataError(f"input {name!r} has no data")
    if kind == "BYTES":
        return name, _files(name, data, size), rest
    try:
        values = np.asarray(data, dtype=_ARRAYS[kind])
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the data of input {name!r} are no numbers") from error
    if values.size != size:
        raise DataError(f"input {name!r} has {values.size} values, and its shape is {shape}")
    return name, values.reshape(shape), rest


def _files(name: str, data: list[Any], size: int) -> list[bytes]:
    """Files in JSON, which has no bytes: base64."""
    if len(data) != size:
        raise DataError(f"input {name!r} has {len(data)} values, and its shape says {size}")
    try:
        return [base64.b64decode(value, validate=True) for value in data]
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"the data of input {name!r} are no base64; send files as binary tensors") from error


def _checked(name: Any, kind: Any, shape: Any, kinds: Sequence[str]) -> tuple[str, str, list[int], int]:
    """Name, data type and shape of an input, which can be, and the number of its values."""
    if not isinstance(name, str) or not name:
        raise DataError("an input has no name")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise DataError(f"the shape of input {name!r} is no list of sizes")
    size = math.prod(shape)
    if not 0 < size <= _LARGEST:
        raise DataError(f"input {name!r} has {size} values; it has one or more, and at most {_LARGEST}")
    if kind not in kinds:
        raise DataError(f"the datatype of input {name!r} is {kind!r}; it is {' or '.join(kinds)}")
    return name, kind, shape, size


def unpacked(name: str, kind: str, shape: list[int], data: bytes, kinds: Sequence[str] = SAMPLES) -> Values:
    """The values of an input from its bytes, as they are sent in binary. Raises ``DataError`` where they do not fit."""
    size = _checked(name, kind, shape, kinds)[-1]
    if kind in _ARRAYS:
        own = _ARRAYS[kind]
        if len(data) != own.itemsize * size:
            raise DataError(f"input {name!r} has {len(data)} bytes, and {own.itemsize * size} with the shape {shape}")
        return np.frombuffer(data, own.newbyteorder("<")).astype(own).reshape(shape)
    found: list[bytes] = []
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise DataError(f"the bytes of input {name!r} end in the middle of a length")
        (length,) = struct.unpack_from("<I", data, place)
        place += 4 + length
        if place > len(data) or len(found) == size:
            raise DataError(f"the bytes of input {name!r} are not {size} elements, each behind its length")
        found.append(data[place - length : place])
    if len(found) != size:
        raise DataError(f"the bytes of input {name!r} are not {size} elements, each behind its length")
    return found


def packed(values: Values) -> bytes:
    """The bytes of an output or an input, as they are sent in binary."""
    if isinstance(values, list):
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _about(name: str, values: Values) -> dict[str, Any]:
    """A tensor without its data."""
    return {"name": name, "datatype": data_type(values), "shape": list(np.shape(values))}


def data_type(values: Values) -> str:
    """What the protocol calls it."""
    return "BYTES" if isinstance(values, list) else _TYPES[values.dtype.name]


def _object(said: Any, what: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise DataError(f"{what}: that is a JSON object")
    return said
