"""Rows of a benchmark of a self-exiting file: timed against itself with no exit on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from offramp._batches import Inputs, cat, count, parts
from offramp.bench.rows import Baselines, Work, on_blank, pieces_of, spaced, timed_rows
from offramp.data import Samples, loader
from offramp.engine.file import FileSession
from offramp.engine.pieces import NetworkInPieces, Piece, SessionInPieces
from offramp.engine.runtime import Runtime
from offramp.errors import UsageError
from offramp.policies import Policy
from offramp.policies.forced import forced_shares
from offramp.policies.threshold import Threshold
from offramp.types import CostTable


def bench_file(
    session: FileSession,
    runtime: Runtime,
    policy: Policy,
    source: Samples | Sequence[float],
    batches: Sequence[int],
    images: int,
    rounds: int,
    progress: bool = False,
    baselines: Baselines | None = None,
    piece: Piece | None = None,
) -> list[dict[str, Any]]:
    """One row for each batch size; ``static`` is the same file with no exit on, in which no head runs.

    Only a file with a threshold policy on a score of one output can be told so; any other is compared with the first of
    ``baselines``, which should be its backbone without exits. MACs are those that the file says of itself.

    Args:
        session: the file, opened in the runtime.
        runtime: the runtime.
        policy: of the kind in the file: who leaves where.
        source: samples, on which the policy is run; or for each exit, the final exit last, the share of random images
            that shall leave there. Thresholds are then set between the scores of these very images; where many have
            one score, as in int8, the shares are met as nearly as that allows, and each row says how nearly.
        batches: batch sizes.
        images: how many images a round has, at least one batch.
        rounds: how many rounds are timed.
        progress: whether to show a progress bar.
        baselines: what else to time in the same run, on blank images of its own size.
        piece: how many samples of a batch to compute at a time; all if not given.

    Raises:
        UsageError: a file that cannot be told to let nobody leave, without a baseline; shares for such a file, or not
            one for each exit; pictures of different sizes for one batch.
        DataError: an image that cannot be read.
    """
    costs = CostTable.from_json(session.file.about["costs"])
    static = static_part(session, baselines or {})

    def work_of(batch: int) -> Iterable[Work]:
        if isinstance(source, Samples):
            return ((x, policy) for x in _batches(session, source, batch, images))
        generator = torch.Generator().manual_seed(0)
        number = max(images // batch, 1)
        work = [session.file.input.example(batch, generator, session.raw) for _ in range(number)]
        rule = _thresholds_for(session, policy, source, work)
        return ((x, rule) for x in work)

    about = {"runtime": runtime.name, "precision": session.precision, "threads": runtime.threads}
    whole = (costs, work_of, batches, images, rounds, about, progress, baselines)
    if piece is None:
        return timed_rows(static, session, *whole)
    network, dynamic = NetworkInPieces(static, piece), SessionInPieces(session, policy, piece)
    rows = timed_rows(network, dynamic, *whole)
    return [{**row, **pieces_of(row["batch"], static=network, dynamic=dynamic)} for row in rows]


def static_part(session: FileSession, baselines: Baselines) -> Callable[[Inputs], Any]:
    """A file with no exit on, or else the first of the baselines. Raises ``UsageError`` where there is neither."""
    own = session.file.policy
    if isinstance(own, Threshold) and session.file.switched:
        never = replace(own, thresholds=(None,) * len(own.thresholds))
        return lambda x: session(x, never).output
    for network, shape in baselines.values():
        blank = on_blank(network, shape)
        return lambda x: blank(count(x))
    raise UsageError(
        f"a file with a {type(own).__name__} policy on {own.score} cannot be told to let nobody leave: "
        "name its backbone without exits, as a file, by --baseline"
    )


def _batches(session: FileSession, samples: Samples, batch: int, images: int) -> Iterable[Inputs]:
    """An evenly spaced choice of the samples, as the file takes them."""
    chosen, reads = spaced(samples, images), session.file.input
    if not session.raw:
        yield from (x for x, _ in loader(chosen, reads, batch))
        return
    for first in range(0, len(chosen), batch):
        given = [reads.raw(chosen.read(i)) for i in range(first, min(first + batch, len(chosen)))]
        if len({tuple(part.shape for part in parts(x)) for x in given}) > 1:
            raise UsageError(f"{reads.noun} of different sizes make no batch for this file: time a batch of 1")
        yield cat(given)


def _thresholds_for(session: FileSession, policy: Policy, shares: Sequence[float], work: Sequence[Inputs]) -> Threshold:
    """Thresholds at which these images leave in these shares; an exit without a share is off."""
    if not isinstance(policy, Threshold) or not session.file.switched:
        raise UsageError(
            f"random images cannot be made to leave by a {type(policy).__name__} policy on {policy.score}: name data"
        )
    exits = len(policy.thresholds)
    if len(shares) != exits + 1:
        raise UsageError(f"{len(shares)} shares for {exits} early exits and the final one")
    samples = sum(map(count, work))
    wanted = torch.bincount(torch.tensor(forced_shares(shares, samples).exits), minlength=exits + 1).tolist()
    inside = torch.ones(samples, dtype=torch.bool)
    thresholds: list[float | None] = []
    for k in range(exits):
        leaving = min(wanted[k], int(inside.sum()))
        if leaving == 0:
            thresholds.append(None)
            continue
        alone = replace(policy, thresholds=tuple(0.0 if j == k else None for j in range(exits)))
        scores = torch.cat([session(x, alone).score for x in work])
        surest = scores[inside].sort(descending=True).values.tolist()
        after = surest[leaving] if leaving < len(surest) else surest[-1]
        threshold = (surest[leaving - 1] + after) / 2
        inside &= scores < threshold
        thresholds.append(threshold)
    return replace(policy, thresholds=tuple(thresholds))
