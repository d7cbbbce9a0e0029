"""The servers that are compared, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_SECONDS = 120.0
"""To be ready in."""


class Server:
    """A process, and those that it starts, which run only while it is asked: an idle one may spin.

    Args:
        words: of the command, behind the Python that runs this.
        port: that it listens at.
    """

    def __init__(self, words: Sequence[str], port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen([sys.executable, *words], start_new_session=True)
        end = time.monotonic() + _SECONDS
        while not _is_ready(self.address):
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                raise RuntimeError(f"{' '.join(words)} did not begin to answer")
            time.sleep(0.2)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While it is asked; before and after it is stopped."""
        self._tell(signal.SIGCONT)
        try:
            yield
        finally:
            self._tell(signal.SIGSTOP)

    def close(self) -> None:
        """End all of its processes."""
        self._tell(signal.SIGKILL)
        self._process.wait()

    def _tell(self, what: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, what)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
