"""Rows of answers as Parquet."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offramp._files import atomic_file
from offramp.answers.opened import Opened
from offramp.errors import DataError, UsageError

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise UsageError("writing Parquet needs one more package: pip install pyarrow") from error


def schema_of(opened: Opened) -> pa.Schema:
    """The columns of a model's rows, whichever of them a row has: ``input``, ``label``, ``score``, ``exit``, ``after``,
    ``path``, ``ms``, ``error``; text, numbers in float64 and int64."""
    number = opened.task.answer(opened.warm().output).dtype
    label = pa.float64() if number.is_floating_point else pa.int64()
    kinds = {
        "input": pa.string(),
        "label": label if opened.classes is None else pa.string(),
        "score": pa.float64(),
        "exit": pa.int64(),
        "after": pa.int64(),
        "path": pa.int64(),
        "ms": pa.float64(),
        "error": pa.string(),
    }
    return pa.schema(kinds.items())


def check_place(file: Path) -> None:
    """Raise ``DataError`` where a file could not be written: before rows are computed, which would be lost."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
        if file.is_dir():
            raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise DataError(f"{file} could not be written: {error}") from error


def write_rows(file: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Rows as one file, in one step. Raises ``DataError`` where it could not be written."""
    with atomic_file(file) as new:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema), new)
