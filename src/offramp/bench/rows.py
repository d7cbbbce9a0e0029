"""Rows of a benchmark: a model at several batch sizes, in one runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from offramp._batches import Inputs, count, to
from offramp._progress import progress_bar
from offramp.bench.forced import ForcedWork
from offramp.bench.measure import macs_speedup, measure
from offramp.cost import profile
from offramp.data import Samples, loader
from offramp.engine.runtime import Runtime, Session
from offramp.engine.torch import TorchRuntime
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.types import CostTable, Network

Work = tuple[Inputs, Policy]
Baselines = Mapping[str, tuple[Network, tuple[int, ...]]]
"""Other static networks by name, each with the shape of an image of its own."""


def bench_policy(
    model: EarlyExitModel,
    policy: Policy,
    samples: Samples,
    batches: Sequence[int],
    images: int,
    rounds: int,
    progress: bool = False,
    runtime: Runtime | None = None,
    baselines: Baselines | None = None,
) -> list[dict[str, Any]]:
    """One row for each batch size, with a policy on real images.

    Args:
        model: the model.
        policy: who leaves where.
        samples: where the images come from, the first ``images`` of an evenly spaced choice.
        batches: batch sizes.
        images: how many images a round has, at least one batch.
        rounds: how many rounds are timed.
        progress: whether to show a progress bar.
        runtime: what computes; PyTorch if not given.
        baselines: what else to time in the same run, on blank images of its own size.
    """
    chosen = spaced(samples, images)

    def work_of(batch: int) -> Iterable[Work]:
        for x, _ in loader(chosen, model.input, batch):
            yield x, policy

    return _model_rows(model, policy, work_of, batches, images, rounds, progress, runtime, baselines)


def bench_forced(
    model: EarlyExitModel,
    shares: Sequence[float],
    batches: Sequence[int],
    images: int,
    rounds: int,
    progress: bool = False,
    runtime: Runtime | None = None,
    baselines: Baselines | None = None,
    asked: tuple[int, ...] | None = None,
) -> list[dict[str, Any]]:
    """One row for each batch size, with exits forced to given shares, on random images; arguments as above.

    A batch too small to hold the shares takes its exits from a round that holds them. Where the model has a router it
    runs and is heeded, with a bias that sends as many samples to each path as leave there.

    Args:
        model: as above.
        shares: of the images that leave at each exit, the final exit last.
        batches: as above.
        images: as above.
        rounds: as above.
        progress: as above.
        runtime: as above.
        baselines: as above.
        asked: the exits whose heads run; all if not given.

    Raises:
        UsageError: not one share for each exit, shares that do not sum to 1, or one for an exit that is not asked.
    """
    forced = ForcedWork(model, shares, asked)

    def work_of(batch: int) -> Iterable[Work]:
        return forced.batches(batch, max(images // batch, 1))

    (_, first), *_ = forced.batches(1, 1)
    return _model_rows(model, first, work_of, batches, images, rounds, progress, runtime, baselines)


def expected_shares(policy: Policy) -> list[float]:
    """The shares of samples that a calibrated policy expects at each exit, the final exit last.

    Raises:
        UsageError: a policy that was not calibrated, and expects nothing.
    """
    provenance: Mapping[str, Any] = getattr(policy, "provenance", {})
    shares = provenance.get("expected", {}).get("exit_shares")
    if not shares:
        raise UsageError("this policy was not calibrated and expects no shares of exits: name data, or give --shares")
    return [float(share) for share in shares]


def spaced(samples: Samples, images: int) -> Samples:
    """As many of the samples, evenly spaced; all where there are fewer."""
    return samples.take(torch.linspace(0, len(samples) - 1, min(images, len(samples))).long().numpy())


def _model_rows(
    model: EarlyExitModel,
    policy: Policy,
    work_of: Callable[[int], Iterable[Work]],
    batches: Sequence[int],
    images: int,
    rounds: int,
    progress: bool,
    runtime: Runtime | None,
    baselines: Baselines | None,
) -> list[dict[str, Any]]:
    runtime = TorchRuntime() if runtime is None else runtime
    device = next(model.parameters()).device
    network = runtime.static(model.static, to(model.input.example(2), device))
    dynamic = runtime.dynamic(model, policy)

    def there(batch: int) -> Iterable[Work]:
        return ((to(x, device), policy) for x, policy in work_of(batch))

    about = {"runtime": runtime.name, "precision": runtime.precision, "threads": runtime.threads}
    costs = profile(model, repeats=0)
    rows = timed_rows(network, dynamic, costs, there, batches, images, rounds, about, progress, baselines or {})
    return [{**row, **pieces_of(row["batch"], static=network, dynamic=dynamic)} for row in rows]


def timed_rows(
    static: Callable[[Inputs], Any],
    dynamic: Session,
    costs: CostTable,
    work_of: Callable[[int], Iterable[Work]],
    batches: Sequence[int],
    images: int,
    rounds: int,
    about: Mapping[str, Any],
    progress: bool = False,
    baselines: Baselines | None = None,
) -> list[dict[str, Any]]:
    """One row for each batch size, whatever computes.

    Args:
        static: the backbone without exits.
        dynamic: the model that leaves early.
        costs: MACs of their parts.
        work_of: for a batch size, batches with the policy to run each with.
        batches: as above.
        images: as above.
        rounds: as above.
        about: what stands in every row: runtime, precision, threads.
        progress: as above.
        baselines: as above.
    """
    others = {name: on_blank(network, shape) for name, (network, shape) in (baselines or {}).items()}
    rows: list[dict[str, Any]] = []
    for batch in batches:
        work = list(islice(work_of(batch), max(images // batch, 1)))
        with progress_bar(f"batch {batch}", rounds + 1, show=progress) as bar:
            timed = measure(static, dynamic, work, rounds, bar, others)
        in_macs = macs_speedup(costs, work[0][1], timed.trace)
        rows.append(
            {
                **about,
                "batch": count(work[0][0]),
                "macs_speedup": in_macs,
                **timed.row(),
                "efficiency": timed.speedup / in_macs,
                "exit_shares": timed.shares(len(costs.after) + 1),
            }
        )
    return rows


def pieces_of(batch: int, **ways: Any) -> dict[str, Any]:
    """In what pieces each way computes a batch, where it does."""
    found = {name: way.pieces[batch] for name, way in ways.items() if hasattr(way, "pieces")}
    return {"pieces": found} if found else {}


def on_blank(network: Network, shape: tuple[int, ...]) -> Callable[[int], Tensor]:
    """A static network to be timed: called with a number of samples, it answers as many blank ones.

    They are made once for each number: threads of torch that made them stay awake for a while, and would disturb what
    is timed.

    Args:
        network: what is called.
        shape: of one sample.
    """
    blank = cache(lambda samples: torch.zeros(samples, *shape))
    return lambda samples: network(blank(samples))
