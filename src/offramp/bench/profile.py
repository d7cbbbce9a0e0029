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
from offramp.bench._ways import Way, all_routed, ends_at, routed, ways_of, without_router
from offramp.cost import in_turn, p95, profile
from offramp.engine.runtime import FileRuntime, Runtime, Session, open_runtime
from offramp.errors import DataError, UsageError
from offramp.inputs import Input
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed, inner_of
from offramp.policies.threshold import Threshold, is_gated
from offramp.types import Chain, CostTable, PartCosts, Trace
from offramp.versions import host, versions

if TYPE_CHECKING:
    from offramp.engine.file import FileSession

_EXAMPLES = 16
"""How many random samples are tried until one is found that no exit is wholly sure of."""
_WARM = 3
"""Uncounted runs before each that is timed; after fewer, short runs still fetch weights and look twice as long."""


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
    on; everybody leaves at the end of exit k's path, with no other exit on; the same with exit k on, which nobody
    takes. The last is longer than the one before by what head k takes, policy included. The parts add up to what was
    measured: ``to_exit((k,), "seconds")`` to the median run that ends at exit k, ``to_exit((k,), "p95")`` to the 95th
    percentile of such runs. A segment's seconds stand on its last block, with 0 on the others, on the stem and on a
    path's classifier: more cannot be told apart. Where measurements contradict each other (a head of less than no time,
    a later exit that was reached sooner) the heads give way, and no part is negative.

    A router is timed by sending everybody to the cheapest path, and to the last. What a link takes stands on the path
    that it leads to.

    Encoding another modality stands on the head of every exit that reads it: a path through several of them, or
    through one to a final exit that reads it too, is taken for longer than it is.

    MACs are those of ``offramp.profile``.

    Args:
        runtime: a name from ``offramp list runtimes``, or a runtime.
        model: the model, on the device that it shall be timed on.
        batch_size: the batch that is timed, of one random image.
        repeats: how often each run is timed; one more goes before and is not counted.
        tick: called after each repeat with the number done, the uncounted one included.
        clock: seconds, rising; replaced in tests.

    Raises:
        UsageError: an unknown runtime, repeats or a batch below 1.
        DataError: an exit that is wholly sure (score 1) of every random image, or whose score is not a number.
    """
    computes, chain = open_runtime(runtime), model.chain
    policy = Threshold((1.0,) * len(model.exits), model.task.scores[0])
    ways: dict[Way, Policy] = {**ways_of(policy, chain)}
    if model.router is not None:
        ways |= routed(ways, chain)
    # a file that cannot switch its heads: one for each set of exits that are on
    fixed = isinstance(computes, FileRuntime) and not is_gated(policy, model.task, model.num_outputs)
    sessions: dict[Any, Session] = {}
    for rule in ways.values():
        key = (isinstance(rule, Routed), rule.heads if fixed else ())
        if key not in sessions:
            sessions[key] = computes.dynamic(model, rule)
    calls = {way: _call(sessions[isinstance(r, Routed), r.heads if fixed else ()], r) for way, r in ways.items()}
    conditions = {"runtime": computes.name, "precision": computes.precision, "threads": computes.threads}
    return _timed(profile(model, repeats=0), calls, conditions, _noise(model.input), batch_size, repeats, tick, clock)


def profile_file(
    session: FileSession,
    runtime: Runtime,
    batch_size: int = 1,
    repeats: int = 20,
    tick: Callable[[int], Any] = lambda n: None,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """The same for a self-exiting file, as it is: quantised, or with its own preprocessing of pictures of its own size.

    A file that asks its router asks it in every run. What the router takes is then what a run that enters at the
    cheapest path and goes over to the last takes less than the two alone.

    Args:
        session: the file, opened in the runtime.
        runtime: the runtime.
        batch_size: as above.
        repeats: as above.
        tick: as above.
        clock: as above.

    Raises:
        UsageError: a file that cannot switch its exits, or one that asks its router and whose paths are linked;
            repeats or a batch below 1.
        DataError: as above.
    """
    about, own, chain = session.file.about, inner_of(session.file.policy), session.file.chain
    if not isinstance(own, Threshold) or not session.file.switched:
        raise UsageError(
            "only files whose thresholds switch exits on and off can be timed exit by exit: not those of another "
            "policy, of scores that compare exits, or exported as fixed"
        )
    if chain.linked and isinstance(session.file.policy, Routed):
        raise UsageError(
            "where paths are linked, a file that asks its router in every run cannot be timed part by part"
        )
    plain = ways_of(own, chain)
    ways = all_routed(plain, chain) if isinstance(session.file.policy, Routed) else plain
    calls = {way: _call(session, rule) for way, rule in ways.items()}
    conditions = {"runtime": runtime.name, "precision": session.precision, "threads": runtime.threads}
    costs, examples = CostTable.from_json(about["costs"]), _noise(session.file.input, session.raw)
    return _timed(costs, calls, conditions, examples, batch_size, repeats, tick, clock)


def _call(session: Session, rule: Policy) -> Callable[[Inputs], Trace]:
    return partial(session, policy=rule)


def _timed(
    costs: CostTable,
    calls: Mapping[Way, Callable[[Inputs], Trace]],
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
        calls: what to time.
        conditions: runtime, precision, threads.
        examples: what to try, one sample each.
        batch_size: as in ``profile_in``.
        repeats: as in ``profile_in``.
        tick: as in ``profile_in``.
        clock: as in ``profile_in``.
    """
    if repeats < 1 or batch_size < 1:
        raise UsageError(f"{repeats} repeats of a batch of {batch_size} cannot be timed; both are at least 1")
    x = each(lambda part: part.repeat_interleave(batch_size, 0), _undecided(calls, examples, costs.chain))
    device = calls["whole", 0](x).output.device
    pieces = {str(way): [partial(run, x)] for way, run in calls.items()}
    seconds = in_turn(pieces, repeats, device, tick, clock, warm=_WARM)
    runs = {way: [r[0] for r in seconds[str(way)]] for way in calls}
    medians, late = ({way: reduce(r) for way, r in runs.items()} for reduce in (statistics.median, p95))
    if any(kind == "over" for kind, _ in calls):
        medians, late = (without_router(spent, costs.chain) for spent in (medians, late))
    return replace(
        costs,
        seconds=_of_paths(costs, medians, medians),
        p95=_of_paths(costs, late, medians),
        batch_size=batch_size,
        conditions={"device": str(device), **conditions, "host": host(), "versions": versions()},
    )


def _of_paths(costs: CostTable, spent: Mapping[Way, float], medians: Mapping[Way, float]) -> PartCosts:
    """Costs of all parts, so that runs take what was spent; what heads take of it is that of the medians."""
    chain, found = costs.chain, []
    for path, (start, end) in enumerate(zip(chain.starts, chain.ends, strict=True)):
        # paths that are linked are computed one behind the other, and there is no run without the one before
        before = spent["whole", path - 1] if path and chain.linked else 0.0
        leave, reach = [], []
        for k in range(start, end):
            head = medians["pass", k] - medians["whole", path]
            # a head's share of a late run can seldom be measured: it is that of the medians
            share = (medians["leave", k] - head) / medians["leave", k] if medians["leave", k] else 1.0
            leave.append(max(spent["leave", k] - before, 0.0))
            reach.append(spent["leave", k] * share - before)
        whole = max(spent["whole", path] - before, 0.0)
        found.append(_parts(chain.after[start:end], len(costs.macs.paths[path].steps), leave, reach, whole))
    router = ahead = 0.0
    if ("router", 0) in spent:
        last = chain.num_paths - 1
        router = max(spent["router", 0] - spent["whole", 0], 0.0)
        ahead = max(spent["router", last] - spent["whole", last] - router, 0.0)
    return replace(found[-1], cheaper=tuple(found[:-1]), router=router, ahead=ahead, hears=costs.macs.hears)


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


def _undecided(calls: Mapping[Way, Callable[..., Trace]], examples: Iterator[Inputs], chain: Chain) -> Inputs:
    """One sample that leaves where each way says: at a threshold of 1 nobody should, and a score can reach 1."""
    for x in examples:
        wrong = [way for way, run in calls.items() if int(run(x).exit[0]) != ends_at(way, chain)]
        if not wrong:
            return x
    kind, number = wrong[-1]  # those that pass an exit come last, and say best what is amiss
    passes = kind in ("pass", "over")
    what = "is wholly sure (score 1) of" if passes else "has no score that is a number for"
    k = number if passes else ends_at((kind, number), chain)
    raise DataError(f"exit {k} {what} each of {_EXAMPLES} random samples, so that its head cannot be timed")


def _noise(reads: Input, raw: bool = False) -> Iterator[Inputs]:
    """Samples of noise, each nearer to one value than the one before."""
    generator = torch.Generator().manual_seed(0)
    for number in range(_EXAMPLES):
        yield each(partial(_fainter, by=1 + number), reads.example(1, generator, raw))


def _fainter(x: Tensor, by: int) -> Tensor:
    return x / by if x.is_floating_point() else ((x.float() - 128) / by + 128).to(x.dtype)
