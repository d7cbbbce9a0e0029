"""One pass over the parts of a model, counting and timing each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from offramp._batches import Inputs, parts, to
from offramp.cost.latency import p95 as percentile
from offramp.cost.latency import synchronise
from offramp.cost.macs import count_macs
from offramp.model import EarlyExitModel, evaluating
from offramp.types import CostTable, PartCosts
from offramp.versions import host, versions


def profile(model: EarlyExitModel, batch_size: int = 1, repeats: int = 20) -> CostTable:
    """What stem, blocks, heads and final classifier cost, in PyTorch; ``engine.profile_in`` asks any runtime.

    MACs are those of one sample. Seconds are medians, and 95th percentiles, over ``repeats`` passes through the whole
    model on random samples, each part timed where it stands in the chain, so that caches are as in use.

    Args:
        model: the model, on the device that it shall be timed on.
        batch_size: the batch that is timed.
        repeats: how many passes; 0 times nothing and leaves ``seconds`` out.
    """
    with evaluating(model):
        macs = _walk(model, _example(model, 1), count_macs)
        seconds = p95 = None
        if repeats:
            x = _example(model, batch_size)
            with torch.inference_mode():
                passes = [_walk(model, x, partial(_clock, _device(model))) for _ in range(repeats + 2)][2:]
            seconds, p95 = _over(passes, statistics.median), _over(passes, percentile)
    return CostTable(
        model.after[:-1],
        macs,
        seconds,
        batch_size,
        {
            "device": str(_device(model)),
            "runtime": "torch",
            "precision": "bf16" if next(model.parameters()).dtype == torch.bfloat16 else "fp32",
            "threads": torch.get_num_threads(),
            "host": host(),
            "versions": versions(),
        },
        p95,
        model.chain.linked,
        side=model.chain.side,
    )


def _walk(model: EarlyExitModel, x: Inputs, measure: Any) -> PartCosts:
    """Every part once, in the order of the chain."""
    walked: list[PartCosts] = []
    h: Any = None
    router, ahead, side = 0.0, 0.0, 0.0
    own, *other = parts(x)
    heard: list[Any] = []
    if model.side is not None:
        side, encoded = measure(model.side, *other)
        heard = [(*other, encoded)]
    for number, path in enumerate(model.paths):
        link = measure(model.taken_over, number, h)[0] if number and model.links else 0.0
        stem, h = measure(path.stem, own)
        steps, heads = [], []
        places = [k for k, on in enumerate(model.chain.paths) if on == number]
        for i, block in enumerate(path.steps, start=1):
            cost, h = measure(block, h)
            steps.append(cost)
            state = (h, *heard) if heard else h
            heads += [measure(model.head, k, state)[0] for k in places if model.after[k] == i]
            if number == 0 and model.router is not None and i == max(model.router.after, 1):
                router = measure(model.router, own, h)[0]
                ahead = stem + sum(steps) if model.router.after else 0.0
        walked.append(PartCosts(stem, tuple(steps), tuple(heads[:-1]), heads[-1], link))
    hears = len(model.exits) in model.chain.side
    return replace(walked[-1], cheaper=tuple(walked[:-1]), router=router, ahead=ahead, side=side, hears=hears)


def _clock(device: torch.device, function: Any, *args: Any) -> tuple[float, Any]:
    synchronise(device)
    start = time.perf_counter()
    result = function(*args)
    synchronise(device)
    return time.perf_counter() - start, result


def _over(passes: list[PartCosts], reduce: Callable[[Iterable[float]], float]) -> PartCosts:
    """Each part over all passes."""

    def each(rows: list[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(reduce(column) for column in zip(*rows, strict=True))

    def path(rows: list[PartCosts]) -> PartCosts:
        steps, heads = each([p.steps for p in rows]), each([p.heads for p in rows])
        stem, final, link = (reduce(getattr(p, name) for p in rows) for name in ("stem", "final", "link"))
        return PartCosts(stem, steps, heads, final, link)

    *cheaper, last = (path(list(rows)) for rows in zip(*(p.paths for p in passes), strict=True))
    router, ahead, side = (reduce(getattr(p, name) for p in passes) for name in ("router", "ahead", "side"))
    hears = passes[0].hears
    return replace(last, cheaper=tuple(cheaper), router=router, ahead=ahead, side=side, hears=hears)


def _example(model: EarlyExitModel, n: int) -> Inputs:
    return to(model.input.example(n), next(model.parameters()))


def _device(model: EarlyExitModel) -> torch.device:
    return next(model.parameters()).device
