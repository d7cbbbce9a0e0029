"""What a policy, chosen on validation data, does to every test sample: right or wrong, and at what cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offramp.calibration import calibrate, columns_of
from offramp.errors import GoalError
from offramp.policies import Policy, Routed, replay, spent
from offramp.policies.threshold import Threshold
from offramp.search.bias import best_bias
from offramp.tasks import get_task
from offramp.types import CostTable, ExitTable

_PRICES = 40


@dataclass(frozen=True)
class Reading:
    """One policy on test data.

    Args:
        right: of each sample, 0 or 1, float64 ``(samples,)``.
        macs: of each sample, router and heads included, ``(samples,)``.
        static: MACs of the backbone alone.
        policy: as it was read; None where none was.
        shares: which share of the samples left at each exit.
        entries: which share entered at each path.
    """

    right: Tensor
    macs: Tensor
    static: float
    policy: Policy | None = None
    shares: tuple[float, ...] = ()
    entries: tuple[float, ...] = ()

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return float(self.right.mean())

    @property
    def macs_speedup(self) -> float:
        """MACs of the backbone alone ÷ mean MACs."""
        return self.static / float(self.macs.mean())


@dataclass(frozen=True)
class Tables:
    """What a run's exits said, and what they cost.

    Args:
        validation: policies are chosen on it.
        test: and read on it.
        costs: of the parts.
    """

    validation: ExitTable
    test: ExitTable
    costs: CostTable

    def read(self, policy: Policy) -> Reading:
        """A policy on test data."""
        return _read(policy, self.test, self.costs)

    def alone(self, k: int) -> Reading:
        """Everybody leaves at one exit, where no other is asked."""
        macs = self.costs.in_chain().alone(k)
        right = _right(self.test)[k]
        return Reading(right, torch.full_like(right, macs), self.costs.macs.static)

    def calibrated(self, **goal: Any) -> Reading | None:
        """The policy that ``offramp.calibrate`` chooses for a goal; None where it is out of reach."""
        try:
            return self.read(calibrate(self.validation, self.costs, **goal))
        except GoalError:
            return None

    def routed(self, speedup: float) -> Reading | None:
        """MT-ViT's own way: the router alone says who goes where, and each path answers at its end.

        Of biases for many prices of cost the most accurate on validation data that is as many times cheaper.
        """
        policies = self._routings
        found = [(self._on_validation(p), p) for p in policies]
        fitting = [(r.accuracy, r.macs_speedup, i) for i, (r, _) in enumerate(found) if r.macs_speedup >= speedup]
        return self.read(policies[max(fitting)[2]]) if fitting else None

    def _on_validation(self, policy: Policy) -> Reading:
        return _read(policy, self.validation, self.costs)

    @property
    def _routings(self) -> list[Policy]:
        columns = columns_of(self.validation, self.costs)
        chain = columns.costs.chain
        ends = tuple(range(chain.num_paths))
        always = Threshold((0.0,) * (chain.num_paths - 1))
        costs = torch.tensor([columns.costs.to_exit(ends[:-1], p, True)[p] for p in ends], dtype=torch.float64)
        bias, found = (0.0,) * chain.num_paths, []
        for price in torch.logspace(-3, 1, _PRICES, dtype=torch.float64).tolist():
            worth = columns.quality.double() - price * (costs / columns.static)[:, None]
            for _ in range(3):
                bias = best_bias(columns, worth, bias)
            found.append(Routed(always, bias))
        return list(dict.fromkeys(found))


def at_random(tables: Tables, entries: tuple[float, ...]) -> float:
    """The accuracy to expect where so many, drawn at random, answer at the end of each path."""
    return sum(s * tables.alone(k).accuracy for s, k in zip(entries, tables.test.chain.ends, strict=True))


def oracle(tables: Tables) -> Reading:
    """Each sample on the cheapest path that gets it right; on the cheapest of all where none does."""
    chain, right = tables.test.chain, _right(tables.test)[list(tables.test.chain.ends)]
    path = right.to(torch.uint8).max(0).indices
    macs = torch.tensor([tables.costs.in_chain().alone(k) for k in chain.ends], dtype=torch.float64)
    shares = torch.bincount(path, minlength=chain.num_paths) / len(path)
    return Reading(right.amax(0), macs[path], tables.costs.macs.static, entries=tuple(shares.tolist()))


def _right(table: ExitTable) -> Tensor:
    task = get_task(table.task)
    return torch.stack([task.quality(output, table.targets).double() for output in table.each()])


def _read(policy: Policy, table: ExitTable, costs: CostTable) -> Reading:
    trace = replay(policy, table)
    chain, n = table.chain, len(table)
    right = get_task(table.task).quality(trace.output, table.targets).double()
    shares = torch.bincount(trace.exit, minlength=len(table.outputs)) / n
    entries = torch.bincount(trace.entry, minlength=chain.num_paths) / n
    macs = spent(policy, trace, costs.in_chain())
    return Reading(right, macs, costs.macs.static, policy, tuple(shares.tolist()), tuple(entries.tolist()))
