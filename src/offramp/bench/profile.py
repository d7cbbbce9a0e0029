"""Seconds as a runtime takes them: whole runs timed in turn, and what parts of a model they speak of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from offramp._batches import Inputs, each
from offramp.cost import in_turn, p95, profile
from offramp.engine.runtime import FileRuntime, Runtime, Session, open_runtime
from offramp.errors import DataError, UsageError
from offramp.inputs import Input
from offramp.model import EarlyExitModel
from offramp.policies.threshold import Threshold, is_gated
from offramp.tasks import get_task
from offramp.types import CostTable, PartCosts, Trace
from offramp.versions import host, versions

if TYPE_CHECKING:
    from offramp.engine.file import FileSession

_EXAMPLES = 16
"""How many random samples are tried until one is found that no exit is wholly sure of."""


def profile_in(
    runtime: str | Runtime,
    model: EarlyExitModel,
    batch_size: int = 1,
    repeats: int = 20,
    tick: Callable[[int], Any] = lambda n: None,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """What the parts of a model cost in a runtime, in its precision and with its threads, on this machine.

    A runtime is not asked for a stage, so whole runs are timed, in turn: everybody leaves at exit k, with no other exit
    on; nobody leaves, with no exit on; nobody leaves, with exit k on. The last is longer than the one before by what
    head k takes, policy included. The parts add up to what was measured: ``to_exit((k,), "seconds")`` to the median run
    that ends at exit k, ``to_exit((k,), "p95")`` to the 95th percentile of such runs. A segment's seconds stand on its
    last block, with 0 on the others, on the stem and on the final classifier: more cannot be told apart. Where
    measurements contradict each other (a head of less than no time, a later exit that was reached sooner) the heads
    give way, and no part is negative.

    MACs are those of ``offramp.profile``.

    Args:
        runtime: a name from ``offramp list runtimes``, or a runtime.
        model: the model, on the device that it shall be timed on.
        batch_size: the batch that is timed, of one random image.
        repeats: how often each run is timed; one more goes before and is not counted.
        tick: called after each repeat with the number done, the uncounted one included.
        clock: seconds, rising; replaced in tests.

    Raises:
        UsageError: an unknown runtime, repeats or a batch below 1, a model with several paths.
        DataError: an exit that is wholly sure (score 1) of every random image, or whose score is not a number.
    """
    if model.chain.num_paths > 1:
        raise UsageError("a runtime is timed exit by exit on one path only: offramp.profile times several, in PyTorch")
    computes, exits = open_runtime(runtime), len(model.exits)
    policy = Threshold((1.0,) * exits, model.task.scores[0])
    if isinstance(computes, FileRuntime) and not is_gated(policy, model.task, model.num_outputs):
        # a file that cannot switch its heads: one for each set of exits that are on
        sessions = {way.heads: computes.dynamic(model, way) for way in _ways(policy).values()}
    else:
        sessions = dict.fromkeys((way.heads for way in _ways(policy).values()), computes.dynamic(model, policy))
    examples = _noise(model.input)
    conditions = {"runtime": computes.name, "precision": computes.precision, "threads": computes.threads}
    return _timed(profile(model, repeats=0), sessions, policy, conditions, examples, batch_size, repeats, tick, clock)


def profile_file(
    session: FileSession,
    runtime: Runtime,
    batch_size: int = 1,
    repeats: int = 20,
    tick: Callable[[int], Any] = lambda n: None,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """The same for a self-exiting file, as it is: quantised, or with its own preprocessing of pictures of its own size.

    Args:
        session: the file, opened in the runtime.
        runtime: the runtime.
        batch_size: as above.
        repeats: as above.
        tick: as above.
        clock: as above.

    Raises:
        UsageError: a file with another policy than thresholds; repeats or a batch below 1.
        DataError: as above.
    """
    about, own = session.file.about, session.file.policy
    if session.file.chain.num_paths > 1:
        raise UsageError("a file is timed exit by exit on one path only, and this one has several")
    if not isinstance(own, Threshold) or not is_gated(own, get_task(about["task"]), about["num_outputs"]):
        raise UsageError(
            "only files with a threshold policy on scores that do not compare exits can be timed exit by exit"
        )
    sessions = dict.fromkeys((way.heads for way in _ways(own).values()), session)
    examples = _noise(session.file.input, session.raw)
    conditions = {"runtime": runtime.name, "precision": session.precision, "threads": runtime.threads}
    costs = CostTable.from_json(about["costs"])
    return _timed(costs, sessions, own, conditions, examples, batch_size, repeats, tick, clock)


def _ways(policy: Threshold) -> dict[tuple[str, int], Threshold]:
    """Rules to time: nobody leaves with no exit on, everybody leaves at exit k alone, everybody passes it."""
    exits = range(len(policy.thresholds))

    def only(on: int, threshold: float) -> Threshold:
        return replace(policy, thresholds=tuple(threshold if k == on else None for k in exits))

    at = {("leave", k): only(k, 0.0) for k in exits} | {("pass", k): only(k, 1.0) for k in exits}
    return {("whole", 0): only(-1, 0.0), **at}


def _timed(
    costs: CostTable,
    sessions: Mapping[tuple[int, ...], Session],
    policy: Threshold,
    conditions: Mapping[str, Any],
    examples: Iterator[Inputs],
    batch_size: int,
    repeats: int,
    tick: Callable[[int], Any],
    clock: Callable[[], float],
) -> CostTable:
    """A cost table with seconds.

    Args:
        costs: the MACs.
        sessions: for each set of exits that are on what computes it.
        policy: the rule, whose thresholds do not matter.
        conditions: runtime, precision, threads.
        examples: what to try, one sample each.
        batch_size: as in ``profile_in``.
        repeats: as in ``profile_in``.
        tick: as in ``profile_in``.
        clock: as in ``profile_in``.
    """
    if repeats < 1 or batch_size < 1:
        raise UsageError(f"{repeats} repeats of a batch of {batch_size} cannot be timed; both are at least 1")
    ways = {way: partial(sessions[rule.heads], policy=rule) for way, rule in _ways(policy).items()}
    x = each(lambda part: part.repeat_interleave(batch_size, 0), _undecided(ways, examples))
    device = ways["whole", 0](x).output.device
    seconds = in_turn({str(way): [partial(run, x)] for way, run in ways.items()}, repeats, device, tick, clock)

    def over(kind: str, reduce: Callable[[list[float]], float]) -> list[float]:
        return [reduce([r[0] for r in seconds[str(way)]]) for way in ways if way[0] == kind]

    whole, leave, past = (over(kind, statistics.median) for kind in ("whole", "leave", "pass"))
    # a head's share of a late run can seldom be measured: it is that of the medians
    reach = [a - (b - whole[0]) for a, b in zip(leave, past, strict=True)]
    late = over("leave", p95)
    reach_late = [b * r / a for a, b, r in zip(leave, late, reach, strict=True)]
    depth = len(costs.macs.steps)
    return replace(
        costs,
        seconds=_parts(costs.after, depth, leave, reach, whole[0]),
        p95=_parts(costs.after, depth, late, reach_late, over("whole", p95)[0]),
        batch_size=batch_size,
        conditions={"device": str(device), **conditions, "host": host(), "versions": versions()},
    )


def _parts(after: Sequence[int], depth: int, leave: Sequence[float], reach: Sequence[float], whole: float) -> PartCosts:
    """Costs of parts whose sums are the seconds to leave at each exit, and of the whole network.

    Args:
        after: for each early exit the block that it reads.
        depth: the number of blocks.
        leave: seconds to leave at each exit with only this one on.
        reach: about how many of them it took to come there, head left out.
        whole: seconds of the network with no exit on.
    """
    steps, places = [0.0] * depth, sorted(set(after))
    about = np.array([statistics.mean(r for r, at in zip(reach, after, strict=True) if at == p) for p in places])
    # rising: midway between the most before and the least after
    rising = (np.maximum.accumulate(about) + np.minimum.accumulate(about[::-1])[::-1]) / 2
    spent: dict[int, float] = {0: 0.0}
    for place, wanted in zip(places, rising, strict=True):
        most = min(whole, *(seconds for seconds, at in zip(leave, after, strict=True) if at >= place))
        before = max(spent.values())
        spent[place] = max(before, min(float(wanted), most))
        steps[place - 1] = spent[place] - before
    steps[-1] += whole - max(spent.values())
    return PartCosts(0.0, tuple(steps), tuple(s - spent[at] for s, at in zip(leave, after, strict=True)), 0.0)


def _undecided(ways: Mapping[tuple[str, int], Callable[..., Trace]], examples: Iterator[Inputs]) -> Inputs:
    """One sample that leaves where each way says: at a threshold of 1 nobody should, and a score can reach 1."""
    final = sum(kind == "leave" for kind, _ in ways)
    for x in examples:
        wrong = [way for way, run in ways.items() if int(run(x).exit[0]) != (way[1] if way[0] == "leave" else final)]
        if not wrong:
            return x
    kind, k = wrong[0]
    what = "is wholly sure (score 1) of" if kind == "pass" else "has no score that is a number for"
    raise DataError(f"exit {k} {what} each of {_EXAMPLES} random samples, so that its head cannot be timed")


def _noise(reads: Input, raw: bool = False) -> Iterator[Inputs]:
    """Samples of noise, each nearer to one value than the one before."""
    generator = torch.Generator().manual_seed(0)
    for number in range(_EXAMPLES):
        yield each(partial(_fainter, by=1 + number), reads.example(1, generator, raw))


def _fainter(x: Tensor, by: int) -> Tensor:
    return x / by if x.is_floating_point() else ((x.float() - 128) / by + 128).to(x.dtype)
