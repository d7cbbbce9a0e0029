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

from offramp.errors import DataError


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into; it takes the place of ``path`` only when everything in it was written.

    Raises:
        DataError: it could not be written (full disk, no permission); ``path`` is then as it was.
    """
    path = path.absolute()
    new = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent))
        new.chmod(0o755)
        yield new
        for file in new.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        _swap(new, path)
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
        new.replace(path)
    except OSError as error:
        raise DataError(f"{path} could not be written, nothing was changed: {error}") from error
    finally:
        new.unlink(missing_ok=True)


def _swap(new: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, values: Any) -> None:
    """Plain values as an indented JSON file, in one step."""
    with atomic_file(path) as new:
        new.write_text(json.dumps(values, indent=1) + "\n")
