"""From the word for a device to the device."""

from __future__ import annotations

import torch

from offramp.errors import UsageError


def device_named(name: str) -> torch.device:
    """The device of a word.

    Args:
        name: ``auto``, the machine's accelerator where it has one, else the processor; ``cpu``; ``cuda``, ``cuda:1``,
            ``mps``, or what else torch calls an accelerator of this machine.

    Raises:
        UsageError: another word, or an accelerator that torch does not find here.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return torch.device("cpu") if found is None else found
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device is {name!r}; it is auto, cpu, cuda, cuda:1, mps") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if found is None or device.type != found.type:
        here = "none" if found is None else f"{found.type} only"
        raise UsageError(f"the accelerator {name!r} was asked for, and torch finds {here} here")
    if (device.index or 0) >= torch.accelerator.device_count():
        raise UsageError(
            f"{name!r} was asked for, and torch finds {torch.accelerator.device_count()} of this kind here"
        )
    return device


def current_device(name: str) -> torch.device:
    """``device_named``, made the current one of its kind: where libraries choose by themselves, they choose it."""
    device = device_named(name)
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)
    return device
