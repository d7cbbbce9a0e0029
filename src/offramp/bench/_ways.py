"""Runs to time, so that the parts of a model can be told from them; and back from runs to parts that add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from offramp.policies import Policy, into
from offramp.policies.threshold import Threshold
from offramp.types import Chain

Way = tuple[str, int]
"""What is timed: a kind of run, and the number of an exit or a path."""


def ways_of(policy: Threshold, chain: Chain) -> dict[Way, Threshold]:
    """Rules to time.

    ``whole``, p: everybody leaves at the end of path p, with no other exit on; ``leave``, k: everybody leaves at exit
    k; ``pass``, k: everybody passes exit k and leaves at the end of its path.
    """
    final = len(chain.after) - 1
    inside = [k for k in range(final) if k not in chain.ends]

    def only(on: Mapping[int, float]) -> Threshold:
        return replace(policy, thresholds=tuple(on.get(k) for k in range(final)))

    ends = [{} if end == final else {end: 0.0} for end in chain.ends]
    whole: dict[Way, Threshold] = {("whole", path): only(end) for path, end in enumerate(ends)}
    leave: dict[Way, Threshold] = {("leave", k): only({k: 0.0}) for k in inside}
    return whole | leave | {("pass", k): only({k: 1.0, **ends[chain.paths[k]]}) for k in inside}


def routed(ways: Mapping[Way, Policy], chain: Chain) -> dict[Way, Policy]:
    """``router``, p: the router is asked and sends everybody to path p, the cheapest and the last."""
    return {("router", path): into(ways["whole", path], path, chain.num_paths) for path in (0, chain.num_paths - 1)}


def all_routed(ways: Mapping[Way, Threshold], chain: Chain) -> dict[Way, Policy]:
    """All of them with the router asked; and ``over``, k: pass the end of the cheapest path, exit k, to the last."""
    final, paths, end = len(chain.after) - 1, chain.num_paths, chain.ends[0]
    sent: dict[Way, Policy] = {way: into(rule, chain.paths[ends_at(way, chain)], paths) for way, rule in ways.items()}
    first = replace(ways["whole", 0], thresholds=tuple(1.0 if k == end else None for k in range(final)))
    return {("over", end): into(first, 0, paths), **sent}


def without_router(spent: Mapping[Way, float], chain: Chain) -> dict[Way, float]:
    """What runs took of which all but ``over`` asked the router, as if it had been asked only where ``router`` says."""
    first, last = ("whole", 0), ("whole", chain.num_paths - 1)
    router = max(spent[first] + spent[last] - spent["over", chain.ends[0]], 0.0)
    plain = {way: max(seconds - router, 0.0) for way, seconds in spent.items() if way[0] != "over"}
    return {**plain, **{("router", path): spent["whole", path] for _, path in (first, last)}}


def ends_at(way: Way, chain: Chain) -> int:
    """The exit where everybody leaves."""
    kind, number = way
    if kind == "leave":
        return number
    if kind == "over":
        return len(chain.after) - 1
    return chain.ends[chain.paths[number] if kind == "pass" else number]
