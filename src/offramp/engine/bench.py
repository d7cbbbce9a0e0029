"""Rows of a benchmark: a model at several batch sizes, in one runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from offramp._progress import progress_bar
from offramp.cost import profile
from offramp.data import Samples, loader
from offramp.engine.measure import macs_speedup, measure
from offramp.engine.runtime import Runtime
from offramp.engine.torch import TorchRuntime
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.policies.forced import Forced, forced_shares
from offramp.types import Network

Piece = tuple[Tensor, Policy]
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
    spaced = samples.take(torch.linspace(0, len(samples) - 1, min(images, len(samples))).long().numpy())

    def pieces(batch: int) -> Iterable[Piece]:
        for x, _ in loader(spaced, model.data_config, batch):
            yield x, policy

    return _rows(model, pieces, batches, images, rounds, policy.heads, progress, runtime, baselines or {})


def bench_forced(
    model: EarlyExitModel,
    shares: Sequence[float],
    batches: Sequence[int],
    images: int,
    rounds: int,
    progress: bool = False,
    runtime: Runtime | None = None,
    baselines: Baselines | None = None,
) -> list[dict[str, Any]]:
    """One row for each batch size, with exits forced to given shares, on random images; arguments as above.

    A batch too small to hold the shares takes its exits from a round that holds them.

    Raises:
        UsageError: not one share for each exit, or shares that do not sum to 1.
    """
    exits = len(model.exits)
    if len(shares) != exits + 1:
        raise UsageError(f"{len(shares)} shares for {exits} early exits and the final one")
    score = model.task.scores[0]
    generator = torch.Generator().manual_seed(0)

    def pieces(batch: int) -> Iterable[Piece]:
        count = max(images // batch, 1)
        order = torch.tensor(forced_shares(shares, count * batch).exits)[
            torch.randperm(count * batch, generator=generator)
        ]
        for part in order.split(batch):
            x = torch.randn(batch, *model.data_config["input_size"], generator=generator)
            yield x, Forced(tuple(part.tolist()), exits, score)

    heads = tuple(range(exits))
    return _rows(model, pieces, batches, images, rounds, heads, progress, runtime, baselines or {})


def _rows(
    model: EarlyExitModel,
    pieces: Callable[[int], Iterable[Piece]],
    batches: Sequence[int],
    images: int,
    rounds: int,
    heads: tuple[int, ...],
    progress: bool,
    runtime: Runtime | None,
    baselines: Baselines,
) -> list[dict[str, Any]]:
    runtime = TorchRuntime() if runtime is None else runtime
    costs = profile(model, repeats=0)
    device = next(model.parameters()).device
    rows: list[dict[str, Any]] = []
    static = dynamic = None
    others = {name: partial(_call_blank, network, shape) for name, (network, shape) in baselines.items()}
    for batch in batches:
        work = [(x.to(device), policy) for x, policy in islice(pieces(batch), max(images // batch, 1))]
        if static is None or dynamic is None:
            example = torch.randn(2, *model.data_config["input_size"], device=device)
            static, dynamic = runtime.static(model.backbone.model, example), runtime.dynamic(model, work[0][1])
        with progress_bar(f"batch {batch}", rounds + 1, show=progress) as bar:
            timed = measure(static, dynamic, work, rounds, bar, others)
        in_macs = macs_speedup(costs, heads, timed.trace)
        rows.append(
            {
                "runtime": runtime.name,
                "precision": runtime.precision,
                "batch": len(work[0][0]),
                "threads": runtime.threads,
                "macs_speedup": in_macs,
                **timed.row(),
                "efficiency": timed.speedup / in_macs,
            }
        )
    return rows


def _call_blank(network: Network, shape: tuple[int, ...], samples: int) -> Tensor:
    return network(torch.zeros(samples, *shape))
