"""From the word for a device to the device."""

from __future__ import annotations

import torch

from offramp.errors import UsageError


def device_named(name: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``. Raises ``UsageError`` for another word, or if there is no GPU."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device is {name!r}; it is auto, cpu or cuda")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UsageError("a GPU was asked for, and torch finds none here")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
