"""What a policy is calibrated for: which are allowed, which of two is better, and whether one keeps its goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from offramp.calibration.expected import expected
from offramp.calibration.losses import exit_losses
from offramp.errors import UsageError
from offramp.policies import Policy, replay, spent
from offramp.tasks import Task, direction
from offramp.types import CostTable, ExitTable

Numbers = TypeVar("Numbers", float, Tensor)

ROUNDING = 1e-12
"""What sums of float64 may differ by, as a share, without breaking a promise."""


@dataclass(frozen=True)
class Goal:
    """One goal in the user's words.

    Args:
        name: ``max_drop``, ``target_speedup``, ``max_cost`` or ``risk``.
        value: the limit.
        unit: what cost means: ``macs`` or ``seconds``.
        loss: what ``risk`` is a share of.

    Raises:
        UsageError: a value out of its range, an unknown unit.
    """

    name: str
    value: float
    unit: str = "macs"
    loss: str = "disagreement"

    def __post_init__(self) -> None:
        value = self.value
        ranges: Mapping[str, tuple[bool, str]] = {
            "max_drop": (value >= 0, "it is a loss of the metric, 0 or more"),
            "target_speedup": (value >= 1, "it is a ratio, 1 or more"),
            "max_cost": (value > 0, "it is a cost, above 0"),
            "risk": (0 < value < 1, "it is a share of cases, between 0 and 1"),
        }
        allowed, reason = ranges[self.name]
        if not allowed:
            raise UsageError(f"{self.name} is {value}; {reason}")
        if self.unit not in ("macs", "seconds"):
            raise UsageError(f"unit is {self.unit!r}; it is macs or seconds")

    @property
    def limit_unit(self) -> str:
        """What a limit is held against: where it is time, the 95th percentile and not the median."""
        return "p95" if self.unit == "seconds" else self.unit

    def allows(self, quality: Numbers, static: float, speedup: Numbers) -> Any:
        """Whether ``max_drop`` or ``target_speedup`` is reached.

        Args:
            quality: mean quality, higher is better.
            static: the same of the final exit.
            speedup: cost of the static backbone ÷ mean cost.
        """
        if self.name == "max_drop":
            return static - quality <= self.value + ROUNDING * max(1.0, abs(static))
        return speedup >= self.value * (1 - ROUNDING)

    def order(self, quality: Numbers, speedup: Numbers) -> tuple[Numbers, Numbers]:
        """What the best has most of, and what decides among equals."""
        return (speedup, quality) if self.name == "max_drop" else (quality, speedup)

    def fits(self, cost: float) -> bool:
        """Whether a cost is within ``max_cost``."""
        return cost <= self.value * (1 + ROUNDING)

    def judge(self, policy: Policy, table: ExitTable, costs: CostTable, task: Task) -> tuple[bool, dict[str, Any]]:
        """Replay a policy on a table: whether it keeps the goal there, and what it is worth (``expected``)."""
        trace = replay(policy, table, task)
        found = expected(policy, trace, table, costs, task, self.unit)
        if self.name == "max_cost":
            return self.fits(float(spent(policy, trace, costs.in_chain(self.limit_unit)).max())), found
        if self.name == "risk":
            lost = exit_losses(table, task, self.loss, trace.entry).gather(0, trace.exit[None]).mean()
            return float(lost) <= self.value + ROUNDING, found
        return bool(self.allows(*self._of(found, task))), found

    def rank(self, found: Mapping[str, Any], task: Task) -> tuple[float, float]:
        """``order`` of what ``judge`` found."""
        quality, _, speedup = self._of(found, task)
        return self.order(quality, speedup)

    def reached(self, found: Mapping[str, Any], task: Task) -> float:
        """How far a policy came, the more the better: the drop with the other sign, or the speed-up."""
        quality, static, speedup = self._of(found, task)
        return quality - static if self.name == "max_drop" else speedup

    def _of(self, found: Mapping[str, Any], task: Task) -> tuple[float, float, float]:
        way = direction(task)
        return way * found[task.metric], way * found[f"static_{task.metric}"], found[f"{self.unit}_speedup"]
