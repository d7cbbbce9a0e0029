"""What a number was measured with."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any


def version() -> str:
    """The version of Offramp."""
    return installed("offramp")


def versions() -> dict[str, str]:
    """The versions of what computes."""
    found = {"python": platform.python_version()}
    for name in ("offramp", "torch", "timm", "numpy", "onnxruntime", "openvino"):
        with suppress(PackageNotFoundError):  # the last two are extras
            found[name] = installed(name)
    return found


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def host() -> dict[str, Any]:
    """The machine, without its name: processor, cores that this process may use, memory."""
    import torch

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor, "cores": cores(), "accelerator": accelerator, "system": platform.system()}
