"""A server in a process of its own, as ``offramp serve`` starts one."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.serving.servers import free_port


def start(folder: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """The process, once it is ready, and host:port."""
    address = f"127.0.0.1:{free_port()}"
    port = address.split(":")[1]
    line = [sys.executable, "-m", "offramp", "serve", str(folder), "--port", port, "--device", "cpu", *words]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=1)
            return process, address
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
    raise AssertionError("it did not start")
