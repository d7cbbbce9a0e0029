"""Writing so that a reader sees the old or the new, never half of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offramp.errors import ArtifactError, DataError

_LARGEST_JSON = 2**26


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into; it is called ``path``, which is not there yet, when everything in it was written.

    Raises:
        DataError: it could not be written (full disk, no permission).
    """
    path = path.absolute()
    new = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent))
        new.chmod(0o755)
        yield new
        sync(new)
        new.rename(path)
    except Exception as error:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        # safetensors reports a full disk as an error of its own, with the system's words in it
        if isinstance(error, OSError) or "os error" in str(error).lower():
            raise DataError(f"{path} could not be written, nothing was changed: {error}") from error
        raise
    except BaseException:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A new file to write; it takes the place of ``path`` only when it is complete.

    Raises:
        DataError: it could not be written; ``path`` is then as it was.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield new
        with new.open("rb") as handle:
            os.fsync(handle.fileno())
        new.replace(path)
    except OSError as error:
        raise DataError(f"{path} could not be written, nothing was changed: {error}") from error
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Plain values as an indented JSON file, in one step. Raises ``DataError``: not written, or numbers not finite."""
    try:
        text = json.dumps(values, indent=1, allow_nan=False)
    except ValueError as error:
        raise DataError(f"{path} was not written, a number in it is not finite: {error}") from error
    with atomic_file(path) as new:
        new.write_text(text + "\n")


def sync(folder: Path) -> None:
    """Wait until the files of a folder are on the disk."""
    for file in folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def read_json(path: Path, content: bytes | None = None) -> dict[str, Any]:
    """The object in a JSON file, or in bytes that were read from it.

    Raises:
        ArtifactError: a file that is missing, larger than 64 MB, no JSON, no object, or nested too deeply; numbers that
            are not finite.
    """
    try:
        if content is None:
            if (size := path.stat().st_size) > _LARGEST_JSON:
                raise ArtifactError(f"{path} is no JSON of Offramp's: it has {size / 1e6:.0f} MB")
            content = path.read_bytes()
        values = json.loads(content, parse_constant=_refuse_constant)
    except OSError as error:
        raise ArtifactError(f"{path} could not be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is no JSON that can be read: {error}") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} holds no JSON object")
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds the number {name}, which is no JSON")
