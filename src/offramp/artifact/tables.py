"""Exit tables as files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from offramp._files import atomic_file
from offramp.errors import ArtifactError
from offramp.types import ExitTable

_ENTRY = "exit_table"


class _About(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    after: tuple[int, ...]
    heads: tuple[str, ...]
    task: str
    provenance: dict[str, object]


def save_table(table: ExitTable, path: str | Path) -> None:
    """Write an exit table as one safetensors file, in one step. Raises ``DataError`` where it cannot be written."""
    about = {"after": table.after, "heads": table.heads, "task": table.task, "provenance": dict(table.provenance)}
    tensors = {"outputs": table.outputs.contiguous().cpu(), "targets": table.targets.contiguous().cpu()}
    with atomic_file(Path(path)) as new:
        save_file(tensors, new, metadata={_ENTRY: json.dumps(about)})


def load_table(path: str | Path) -> ExitTable:
    """Read an exit table. Raises ``ArtifactError`` for a file that is missing, damaged or something else."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} could not be read: {error.strerror}") from error
    return table_in(content, Path(path))


def table_in(content: bytes, path: Path) -> ExitTable:
    """The exit table in what was read from ``path``. Raises ``ArtifactError``: damaged, or something else."""
    tensors = tensors_in(content, path)
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = _About.model_validate_json(header["__metadata__"][_ENTRY])
        outputs, targets = tensors["outputs"], tensors["targets"]
        exits = len(about.after)
        if outputs.ndim != 3 or outputs.shape[:2] != (exits, len(targets)) or len(about.heads) != exits or exits < 1:
            raise ValueError("its parts have sizes that do not fit together")
        if list(about.after) != sorted(about.after) or about.after[0] < 1:
            raise ValueError("its exits are in no order")
        if not (outputs.is_floating_point() and torch.isfinite(outputs).all() and targets.dtype != torch.bool):
            raise ValueError("it holds values that are no finite numbers")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} holds no exit table: {str(error).splitlines()[0]}") from error
    return ExitTable(outputs, targets, about.after, about.heads, about.task, about.provenance)


def tensors_in(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that was read from ``path``. Raises ``ArtifactError`` where it is damaged."""
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {' '.join(str(error).split())}") from error
