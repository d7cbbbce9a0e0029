"""The servers that are compared, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_SECONDS = 120.0
"""To be ready in."""


@contextmanager
def server(words: Sequence[str], port: int) -> Iterator[str]:
    """A server that listens at a port of this machine while the context lasts; what it yields is its address."""
    process = subprocess.Popen([sys.executable, *words], env={**os.environ, "OMP_NUM_THREADS": "1"})
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + _SECONDS
    try:
        while not _is_ready(address):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(words)} did not begin to answer")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


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
