"""Batches computed a few samples at a time, so that what lies between two layers stays in the processor's caches."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offramp._batches import Inputs, cat, count, each, parts, to
from offramp.cost import in_turn
from offramp.engine.loop import Segments, run_policy
from offramp.engine.runtime import Runtime, Session
from offramp.engine.torch import TorchRuntime
from offramp.errors import UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy, for_rows
from offramp.types import Trace

Piece = int | Literal["auto"]
"""How many samples are computed at a time, or ``auto``: as many as are quickest here."""
_ROUNDS = 3


class RuntimeInPieces:
    """A runtime that computes a batch a few samples at a time.

    A batch of 64 can fall out of the caches and take longer than 64 of one. With ``auto`` the first batch of each size
    is timed in pieces of 1, 2, 4, … samples, and batches of that size keep to the quickest. PyTorch computes each
    segment of the dynamic model in pieces of its own size, and samples leave the whole batch between segments; a file
    is called piece by piece.

    Args:
        runtime: what computes a piece.
        piece: samples a piece.

    Raises:
        UsageError: a piece of less than one sample.
    """

    def __init__(self, runtime: Runtime, piece: Piece = "auto") -> None:
        if piece != "auto" and (isinstance(piece, str) or piece < 1):
            raise UsageError(f"a piece is a number of samples from 1, or 'auto', not {piece!r}")
        self._runtime, self._piece = runtime, piece
        self.name, self.precisions = runtime.name, runtime.precisions
        self.precision, self.threads = runtime.precision, runtime.threads

    def static(self, network: nn.Module, example: Inputs) -> NetworkInPieces:
        """The network."""
        return NetworkInPieces(self._runtime.static(network, example), self._piece)

    def dynamic(self, model: EarlyExitModel, policy: Policy) -> SessionInPieces | LoopInPieces:
        """The model that leaves early."""
        if isinstance(self._runtime, TorchRuntime):
            return LoopInPieces(model, self._runtime.segments(model), policy, self._piece)
        return SessionInPieces(self._runtime.dynamic(model, policy), policy, self._piece)


class NetworkInPieces:
    """A network that computes a batch piece by piece.

    Args:
        network: what computes a piece.
        piece: samples a piece.
    """

    def __init__(self, network: Callable[[Any], Tensor], piece: Piece) -> None:
        self._network, self._piece = network, piece
        self.pieces: dict[int, int] = {}
        """For each size of a batch that was seen, the samples of a piece."""

    def __call__(self, x: Inputs) -> Tensor:
        """The batch's outputs."""
        if count(x) not in self.pieces:
            runs = partial(_in_pieces, self._network, x)
            self.pieces[count(x)] = quickest(runs, x) if self._piece == "auto" else self._piece
        found: Tensor = _in_pieces(self._network, x, self.pieces[count(x)])
        return found


class SessionInPieces:
    """A session that is called piece by piece.

    Args:
        session: what computes a piece.
        policy: the usual one.
        piece: samples a piece; ``auto`` finds the quickest with the policy of the first call.
    """

    def __init__(self, session: Session, policy: Policy, piece: Piece) -> None:
        self._session, self._usual, self._piece = session, policy, piece
        self.pieces: dict[int, int] = {}
        """For each size of a batch that was seen, the samples of a piece."""

    def __call__(self, x: Inputs, policy: Policy | None = None) -> Trace:
        """A batch to its answers, as any session."""
        runs = partial(self._run, x, policy or self._usual)
        if count(x) not in self.pieces:
            self.pieces[count(x)] = quickest(runs, x) if self._piece == "auto" else self._piece
        return runs(self.pieces[count(x)])

    def _run(self, x: Inputs, policy: Policy, size: int) -> Trace:
        rows = [slice(first, first + size) for first in range(0, max(count(x), 1), size)]
        return Trace.cat([self._session(each(itemgetter(r), x), for_rows(policy, r)) for r in rows])


class LoopInPieces:
    """The compaction loop over segments that are computed piece by piece.

    Args:
        model: the model.
        segments: what computes a piece.
        policy: the usual one.
        piece: samples a piece.
    """

    def __init__(self, model: EarlyExitModel, segments: Segments, policy: Policy, piece: Piece) -> None:
        self._model, self._segments, self._usual, self._piece = model, segments, policy, piece
        self.pieces: dict[int, tuple[int, ...]] = {}
        """For each size of a batch that was seen, the samples of a piece in each segment."""

    def __call__(self, x: Inputs, policy: Policy | None = None) -> Trace:
        """A batch to its answers, as any session."""
        x = to(x, next(self._model.parameters()).device)
        with evaluating(self._model), torch.inference_mode():
            sizes = self.pieces.get(count(x))
            if sizes is None:
                fixed = () if self._piece == "auto" else (self._piece,) * len(self._segments.chain.paths)
                sizes = self.pieces[count(x)] = fixed or quickest_sizes(self._segments, x)
            return run_policy(SegmentsInPieces(self._segments, sizes), x, policy or self._usual, self._model.task)


class SegmentsInPieces:
    """Segments that are computed piece by piece, each in pieces of its own size.

    Early segments of a CNN have large maps and few weights, late ones the other way round. Samples leave between
    segments, of the whole batch as ever.

    Args:
        segments: what computes a piece.
        sizes: for each segment the samples of a piece; its exit's head takes them likewise.
    """

    def __init__(self, segments: Segments, sizes: Sequence[int]) -> None:
        self.chain, self.sizes, self._segments = segments.chain, tuple(sizes), segments

    def route(self, x: Inputs) -> tuple[Tensor, Any]:
        """What the router says, and the cheapest path's first state where it read that; of all samples at once."""
        return self._segments.route(x)

    def enter(self, path: int, x: Inputs, h: Any = None) -> Any:
        """The state before a path's first segment."""
        if h is not None:  # of the first samples alone, and added to them: all at once
            return self._segments.enter(path, x, h)
        return _in_pieces(partial(self._segments.enter, path), x, self.sizes[self.chain.starts[path]])

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k``."""
        return _in_pieces(partial(self._segments.step, k), h, self.sizes[k])

    def hear(self, h: Any) -> Any:
        """The state with another modality encoded, of all samples at once."""
        return self._segments.hear(h)

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``."""
        found: Tensor = _in_pieces(partial(self._segments.head, k), h, self.sizes[k])
        return found

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        found: Tensor = _in_pieces(self._segments.final, h, self.sizes[-1])
        return found


def quickest_sizes(segments: Segments, x: Inputs) -> tuple[int, ...]:
    """For each segment the quickest size of a piece, for a batch of which nobody leaves.

    Args:
        segments: what computes.
        x: the batch.
    """
    chain, sizes = segments.chain, []
    h: Any = None
    for k, path in enumerate(chain.paths):
        step = partial(segments.step, k)
        begins = k in chain.starts
        enters = partial(segments.enter, path)
        if begins and path and chain.linked:
            h, begins = enters(x, h), False

        def run(size: int, step: Any = step, enters: Any = enters, h: Any = h, begins: bool = begins) -> None:
            """A segment; a path's first with its stem, whose maps are the largest of all."""
            _in_pieces(step, _in_pieces(enters, x, size) if begins else h, size)

        sizes.append(quickest(run, x))
        h = step(enters(x) if begins else h)
    return tuple(sizes)


def quickest(run: Callable[[int], Any], x: Inputs) -> int:
    """The size of a piece in which a batch takes least time, timed in turn with the others.

    Args:
        run: computes the batch in pieces of a size.
        x: the batch, of which the device and the number of samples are read.
    """
    n = max(count(x), 1)
    sizes = [*(2**i for i in range(n.bit_length()) if 2**i < n), n]
    if len(sizes) == 1:
        return n
    calls = {str(size): [partial(run, size)] for size in sizes}
    seconds = in_turn(calls, _ROUNDS, parts(x)[0].device)
    return min(sizes, key=lambda size: statistics.median(r[0] for r in seconds[str(size)]))


def _in_pieces(run: Callable[[Any], Any], h: Any, size: int) -> Any:
    """What a function makes of samples, called on so many at a time."""
    if count(h) <= size:
        return run(h)
    return cat([run(each(itemgetter(slice(i, i + size)), h)) for i in range(0, count(h), size)])
