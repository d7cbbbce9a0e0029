"""A folder whose files belong together: replaced as a whole, read as a whole, whatever else stands beside them.

New files are written into a folder inside, which gets the name ``.offramp-next`` when all of them are complete. From
that moment on a reader takes them from there. Then they replace the old ones one by one, and ``.offramp-next`` goes. A
kill at any moment leaves all of the old or all of the new; what it leaves besides is tidied up by the next writer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from offramp._files import sync
from offramp.errors import DataError

_NEXT = ".offramp-next"
_SCRAP = ".offramp-scrap-"
_TRIES = 100


def others(path: Path, own: Sequence[str]) -> list[str]:
    """The names in a folder that are neither its ``own`` nor left behind by a writer that was killed."""
    return [entry.name for entry in path.iterdir() if entry.name not in own and not entry.name.startswith(".offramp-")]


@contextmanager
def replacing(path: Path, own: Sequence[str]) -> Iterator[Path]:
    """A new folder to write files into; they replace those of ``path`` together, and nothing else in it is touched.

    Args:
        path: the folder; made where it is not there.
        own: the names that are replaced, or removed where there is no new one. The first identifies a version: no two
            versions have the same bytes in it.

    Raises:
        DataError: something could not be written (full disk, no permission); a reader sees the old files, whole.
    """
    path, new = path.absolute(), None
    try:
        path.mkdir(parents=True, exist_ok=True)
        _finish(path, own)
        new = Path(tempfile.mkdtemp(prefix=_SCRAP, dir=path))
        new.chmod(0o755)
        yield new
        sync(new)
        new.rename(path / _NEXT)
    except BaseException as error:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        with suppress(OSError):
            path.rmdir()  # one that was made for this, and is empty
        # safetensors reports a full disk as an error of its own, with the system's words in it
        if isinstance(error, OSError) or (isinstance(error, Exception) and "os error" in str(error).lower()):
            raise DataError(f"{path} could not be written, nothing was changed: {error}") from error
        raise
    try:
        _finish(path, own)
    except OSError as error:
        raise DataError(f"{path} was written, but what was there could not be tidied up: {error}") from error


def _finish(path: Path, own: Sequence[str]) -> None:
    """Put files that are complete into their places, and take away what writers left."""
    new = path / _NEXT
    if new.is_dir():
        for name in own:  # the identifying one first, so that a reader notices
            if (new / name).exists():
                scrap = path / f"{_SCRAP}{uuid.uuid4().hex}"
                try:
                    os.link(new / name, scrap)
                except OSError:  # not every file system has links
                    shutil.copy2(new / name, scrap)
                scrap.replace(path / name)
            else:
                (path / name).unlink(missing_ok=True)
        new.rename(path / f"{_SCRAP}{uuid.uuid4().hex}")
    for scrap in path.glob(f"{_SCRAP}*"):
        if scrap.is_dir():
            shutil.rmtree(scrap, ignore_errors=True)
        else:
            scrap.unlink(missing_ok=True)


def read_whole(path: Path, own: Sequence[str]) -> dict[str, bytes]:
    """The contents of those of a folder's ``own`` files that are there, all of one version, whoever writes meanwhile.

    Raises:
        OSError: a file cannot be read.
    """
    for _ in range(_TRIES):
        try:
            before = _version(path, own)
            place = path if before[1] is None else path / _NEXT
            found = {name: (place / name).read_bytes() for name in own if (place / name).exists()}
            if _version(path, own) == before:
                return found
        except FileNotFoundError:  # a writer has tidied up
            continue
    raise OSError(f"{path} changed each of the {_TRIES} times that it was read")


def _version(path: Path, own: Sequence[str]) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Which version stands in a folder, and which is coming.

    The first is looked at first: a writer replaces it before all others while its own folder still stands. Were that
    folder looked for before, it could come, and half of it be in place, before the first file is looked at, and go
    before anybody looks for it again.
    """
    return _written(path / own[0]), _written(path / _NEXT)


def _written(file: Path) -> tuple[int, int] | None:
    """Which writing of a file this is; its bytes would not tell a slow reader that two writers came and went."""
    try:
        about = file.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns
