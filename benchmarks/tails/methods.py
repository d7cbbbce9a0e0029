"""What is compared: for each method the run that it needs, the exits that it has, and how its policies are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks._parts import part_of
from benchmarks._runs import table
from benchmarks.tails.plan import Field, large_routers, own_heads, runs
from benchmarks.tails.readings import Reading, Tables
from benchmarks.tails.training import build
from offramp.cost import profile
from offramp.types import Chain

SPEEDUPS = (1.5, 2.0, 2.5, 3.0, 3.5)
"""Budgets: MACs speed-ups that policies are chosen for."""


def _two_ends(chain: Chain) -> list[int]:
    return [chain.ends[0], chain.ends[-1]]


def every_exit(chain: Chain) -> list[int]:
    return list(range(len(chain.paths)))


@dataclass(frozen=True)
class Method:
    """One way to save.

    Args:
        run: whose weights.
        keep: which exits it has.
        heeds: whether it asks the router.
        cascades: whether who is not sure goes on; if not, the router alone decides.
    """

    run: str
    keep: Callable[[Chain], list[int]]
    heeds: bool = False
    cascades: bool = True

    def choose(self, tables: Tables, speedup: float) -> Reading | None:
        """Its policy for a budget, on test data."""
        return tables.calibrated(target_speedup=speedup) if self.cascades else tables.routed(speedup)


ROUTERS = {
    "cnn, with the encoder": "tails",
    "cnn, Gumbel": "cnn-gumbel",
    "cnn, labels": "cnn-labels",
    "exit, labels": "exit-labels",
}
"""Routers by name, each with its run."""
CASCADE = "cascade of paths"
TWO = "cascade of two paths"
LINKED = "cascade of two paths, linked"
METHODS: Mapping[str, Method] = {
    CASCADE: Method("tails", every_exit),
    TWO: Method("tails", _two_ends),
    LINKED: Method("links", every_exit),
    **{f"routed: {name}": Method(run, every_exit, True, False) for name, run in ROUTERS.items()},
    **{f"routed, then cascade: {name}": Method(run, every_exit, True) for name, run in ROUTERS.items()},
    "exits only": Method("exits", every_exit),
    "tails and exits": Method("tails-exits", every_exit),
    "tails and exits, routed: cnn, labels": Method("tails-exits", every_exit, True),
}


class Readings:
    """Everything that finished runs said, read once.

    Args:
        place: where the comparison takes place.
        work: where runs are kept.
        seeds: how many there are.
        classes: how many there are.
    """

    def __init__(self, place: Field, work: Path, seeds: int, classes: int) -> None:
        self.place, self.work, self.seeds = place, work, range(seeds)
        self._costs = {
            run.name: profile(build(run.seeded(0), place, None, classes), repeats=0)
            for run in (*runs(place), own_heads(place), *large_routers(place))
        }
        self._known: dict[str, Tables] = {}

    def of(self, run: str, seed: int) -> Tables:
        """A run's tables."""
        name = f"{run}-{seed}"
        if name not in self._known:
            validation, test = (table(self.work / name, split) for split in ("validation", "test"))
            self._known[name] = Tables(validation, test, self._costs[run])
        return self._known[name]

    @property
    def trained(self) -> dict[str, list[str]]:
        """Devices and versions of torch that computed the tables read so far, at the end of training."""
        tables = [tables.test.provenance for tables in self._known.values()]
        return {
            "devices": sorted({t["device"] for t in tables}),
            "torch": sorted({t["versions"]["torch"] for t in tables}),
        }

    def part(self, method: Method, seed: int) -> Tables:
        """The tables of a method: without the exits and the router that it has not."""
        whole = self.of(method.run, seed)
        keep = method.keep(whole.test.chain)
        (validation, costs), (test, _) = (part_of(t, whole.costs, keep) for t in (whole.validation, whole.test))
        if not method.heeds:
            validation, test = replace(validation, route=None), replace(test, route=None)
        return Tables(validation, test, costs)
