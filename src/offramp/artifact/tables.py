"""Exit tables as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from offramp._files import atomic_file
from offramp.errors import ArtifactError
from offramp.types import ExitTable

_ENTRY = "exit_table"
_TENSORS = ("outputs", "targets", "largest")
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


class _About(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    after: tuple[int, ...]
    heads: tuple[str, ...]
    task: str
    provenance: dict[str, object]


def save_table(table: ExitTable, path: str | Path) -> None:
    """Write an exit table as one safetensors file, exit by exit, in one step.

    Raises:
        DataError: the disk is full or the place cannot be written; nothing was changed.
    """
    about = {"after": table.after, "heads": table.heads, "task": table.task, "provenance": dict(table.provenance)}
    tensors = {"outputs": table.outputs.cpu(), "targets": table.targets.cpu()}
    if table.largest is not None:
        tensors["largest"] = table.largest.cpu()
    with atomic_file(Path(path)) as new:
        _write(tensors, {_ENTRY: json.dumps(about)}, new)


def _write(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """A safetensors file, without a copy of the tensors, which the library makes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for name, tensor in tensors.items():
        end = place + tensor.numel() * tensor.element_size()
        dtype = _DTYPES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for part in tensor if tensor.ndim > 1 else (tensor,):
                file.write(part.contiguous().numpy().data)


def load_table(path: str | Path) -> ExitTable:
    """Read an exit table, exit by exit. Raises ``ArtifactError``: missing, damaged or something else."""
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: _read(file.get_slice(name)) for name in file.keys() if name in _TENSORS}  # noqa: SIM118
            return _table(tensors, file.metadata() or {}, path)
    except OSError as error:
        raise ArtifactError(f"{path} could not be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {' '.join(str(error).split())}") from error


def _read(found: Any) -> torch.Tensor:
    """A tensor in memory of its own, so that a file that changes afterwards does not matter."""
    shape = found.get_shape()
    if len(shape) < 2 or not shape[0]:
        return found[:].clone()
    whole = found[0].new_empty(shape)
    for k in range(shape[0]):
        whole[k] = found[k]
    return whole


def table_in(content: bytes, path: Path) -> ExitTable:
    """The exit table in what was read from ``path``. Raises ``ArtifactError``: damaged, or something else."""
    tensors = tensors_in(content, path)
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header["__metadata__"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} holds no exit table: {str(error).splitlines()[0]}") from error
    return _table(tensors, metadata, path)


def _table(tensors: Mapping[str, torch.Tensor], metadata: Any, path: Path) -> ExitTable:
    try:
        about = _About.model_validate_json(metadata[_ENTRY])
        outputs, targets, largest = tensors["outputs"], tensors["targets"], tensors.get("largest")
        exits = len(about.after)
        if outputs.ndim != 3 or outputs.shape[:2] != (exits, len(targets)) or len(about.heads) != exits or exits < 1:
            raise ValueError("its parts have sizes that do not fit together")
        if largest is not None and largest.shape != outputs.shape[:2]:
            raise ValueError("its parts have sizes that do not fit together")
        if list(about.after) != sorted(about.after) or about.after[0] < 1:
            raise ValueError("its exits are in no order")
        numbers = [*outputs] if largest is None else [*outputs, largest]
        finite = all(part.is_floating_point() and bool(torch.isfinite(part).all()) for part in numbers)
        if not finite or targets.dtype == torch.bool:
            raise ValueError("it holds values that are no finite numbers")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} holds no exit table: {str(error).splitlines()[0]}") from error
    return ExitTable(outputs, targets, about.after, about.heads, about.task, about.provenance, largest)


def tensors_in(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that was read from ``path``. Raises ``ArtifactError`` where it is damaged."""
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {' '.join(str(error).split())}") from error
