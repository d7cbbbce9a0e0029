"""Exit tables as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from offramp._files import atomic_file
from offramp.errors import ArtifactError
from offramp.types import Chain, ExitTable, chain_of

_ENTRY = "exit_table"
_TENSORS = ("outputs", "targets", "largest", "route")
"""What the names of its tensors begin with."""
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
    paths: tuple[int, ...] = ()


def save_table(table: ExitTable, path: str | Path) -> None:
    """Write an exit table as one safetensors file, exit by exit, in one step.

    Raises:
        DataError: the disk is full or the place cannot be written; nothing was changed.
    """
    about = {
        "after": table.after,
        "heads": table.heads,
        "task": table.task,
        "provenance": dict(table.provenance),
        "paths": table.paths,
    }
    tensors = {"outputs": table.outputs.cpu(), "targets": table.targets.cpu()}
    # of those who enter at another path, the outputs stand behind the others, one path after the other
    optional = {"largest": table.largest, "route": table.route}
    for number, entered in enumerate(table.entered, start=1):
        optional |= {f"outputs.{number}": entered.outputs, f"largest.{number}": entered.largest}
    tensors |= {name: tensor.cpu() for name, tensor in optional.items() if tensor is not None}
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
            tensors = {name: _read(file.get_slice(name)) for name in file.keys() if _ours(name)}  # noqa: SIM118
            return _table(tensors, file.metadata() or {}, path)
    except OSError as error:
        raise ArtifactError(f"{path} could not be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {' '.join(str(error).split())}") from error


def _ours(name: str) -> bool:
    return name.partition(".")[0] in _TENSORS


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
        chain = chain_of(about.after, about.paths)
        first = _part(tensors, about, chain, 0)
        entered = [_part(tensors, about, chain, p) for p in range(1, chain.num_paths) if f"outputs.{p}" in tensors]
        route = tensors.get("route")
        sizes = len(entered) in (0, chain.num_paths - 1) and len(about.heads) == len(about.after)
        if not sizes or (route is not None and route.shape != (len(first), chain.num_paths)):
            raise ValueError("its parts have sizes that do not fit together")
        if (route is not None and not _finite(route)) or first.targets.dtype == torch.bool:
            raise ValueError("it holds values that are no finite numbers")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} holds no exit table: {str(error).splitlines()[0]}") from error
    return replace(first, route=route, entered=tuple(entered))


def _part(tensors: Mapping[str, torch.Tensor], about: _About, chain: Chain, entry: int) -> ExitTable:
    """The table of those who enter at one path. Raises ``ValueError`` where its parts do not fit together."""
    suffix = f".{entry}" if entry else ""
    outputs, targets, largest = tensors[f"outputs{suffix}"], tensors["targets"], tensors.get(f"largest{suffix}")
    start = chain.starts[entry]
    fits = outputs.ndim == 3 and outputs.shape[:2] == (len(about.after) - start, len(targets))
    if not fits or (largest is not None and largest.shape != outputs.shape[:2]):
        raise ValueError("its parts have sizes that do not fit together")
    if not all(_finite(part) for part in ([*outputs] if largest is None else [*outputs, largest])):
        raise ValueError("it holds values that are no finite numbers")
    paths = tuple(p - entry for p in about.paths[start:])
    after, heads = about.after[start:], about.heads[start:]
    return ExitTable(outputs, targets, after, heads, about.task, about.provenance, largest, paths)


def _finite(part: torch.Tensor) -> bool:
    return part.is_floating_point() and bool(torch.isfinite(part).all())


def tensors_in(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that was read from ``path``. Raises ``ArtifactError`` where it is damaged."""
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {' '.join(str(error).split())}") from error
