"""Seconds are true where they were measured: whether that is where a policy will run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from offramp.errors import UsageError
from offramp.types import CostTable, ExitTable
from offramp.versions import host


def conditions_here(table: ExitTable, costs: CostTable) -> dict[str, Any]:
    """The runtime and precision that an exit table was computed in, on this machine.

    How many threads will compute is known for PyTorch, where they are the process's own.
    """
    about = {key: table.provenance[key] for key in ("runtime", "precision") if key in table.provenance}
    if str(costs.conditions.get("runtime", "")).startswith("torch"):
        about["threads"] = torch.get_num_threads()
    return {**about, "host": host()}


def differences(costs: CostTable, wanted: Mapping[str, Any]) -> list[str]:
    """What is known of both and differs, in words.

    Args:
        costs: the cost table, which knows its conditions.
        wanted: where the policy will run: any of runtime, precision, threads, device and host. Other versions of the
            same runtime are not told apart.
    """
    found = []
    for key in ("runtime", "precision", "threads", "device", "host"):
        has, asked = costs.conditions.get(key), wanted.get(key)
        if has is None or asked is None or _same(has, asked):
            continue
        if isinstance(has, Mapping) and isinstance(asked, Mapping):
            found += [f"{part} {has.get(part)}, not {asked[part]}" for part in asked if has.get(part) != asked[part]]
        else:
            found.append(f"{key} {has}, not {asked}")
    return found


def check_seconds(costs: CostTable, wanted: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` where seconds were measured elsewhere, or were not."""
    if costs.seconds is None or costs.p95 is None:
        raise UsageError(f"this cost table holds no measured seconds: {_ANEW}")
    if found := differences(costs, wanted):
        raise UsageError(f"the seconds were measured with {'; '.join(found)}: {_ANEW}")


_ANEW = "measure them with offramp.bench.profile_in, or with --measure on the command line"


def _same(has: Any, asked: Any) -> bool:
    """Equal; of devices the kind counts."""
    return has == asked or (isinstance(has, str) and has.split(":")[0] == str(asked).split(":")[0])
