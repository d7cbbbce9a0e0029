"""One pass over a data set: every exit's output for every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from offramp._batches import Inputs, count, loaded, to
from offramp.engine.runtime import Runtime
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy, Routed, inner_of, into
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold
from offramp.types import Chain, ExitTable
from offramp.versions import versions

if TYPE_CHECKING:
    from offramp.engine.file import FileSession


def tabulate(
    model: EarlyExitModel,
    loader: Iterable[tuple[Inputs, Tensor]],
    provenance: Mapping[str, Any] | None = None,
    compact: bool = False,
) -> ExitTable:
    """Run all exits on all samples and keep what they said; decisions are then made from the table.

    Args:
        model: the model; it computes in evaluation mode, whatever mode it is in.
        loader: batches as the model's input prepares them, such as images ``(B, C, H, W)``, and targets ``(B,)``.
        provenance: JSON values that say which data this is; they travel with the table.
        compact: whether to keep a compact table (``ExitTable.compact``), of half the size.

    Raises:
        UsageError: a loader without a batch.
        DataError: outputs that are not finite.
    """
    like = next(model.parameters())

    def said(x: Inputs) -> Said:
        x = to(x, like)
        with evaluating(model), torch.inference_mode():
            route = None if model.router is None else model.route(x)[0].cpu()
            entered = [[model.task.keep(o.float()).cpu() for o in model(x, entry)] for entry in _entries(model.chain)]
        return Said(entered, route)

    precision = "bf16" if like.dtype == torch.bfloat16 else "fp32"
    about = {"runtime": "torch", "precision": precision, "device": str(like.device), "versions": versions()}
    name = getattr(model.task, "name", type(model.task).__name__)
    return _table(loader, said, model.chain, model.head_names, name, {**about, **(provenance or {})}, compact)


def tabulate_in(
    runtime: Runtime,
    model: EarlyExitModel,
    loader: Iterable[tuple[Inputs, Tensor]],
    provenance: Mapping[str, Any] | None = None,
    compact: bool = False,
) -> ExitTable:
    """The same as computed by a runtime, for thresholds that belong to it and to its precision.

    Every sample is sent to every exit in turn, so this takes a few times as long as ``tabulate``. What a router says
    is computed by PyTorch. Arguments as there.
    """
    exits = len(model.exits)
    score = model.task.scores[0]
    session = runtime.dynamic(model, Forced((0,), exits, score))

    def said(x: Inputs) -> Said:
        def one(k: int, entry: int) -> Tensor:
            rows = count(x)
            return session(x, Forced((k,) * rows, exits, score, entries=(entry,) * rows)).output.cpu()

        with evaluating(model), torch.inference_mode():
            route = None if model.router is None else model.route(to(x, next(model.parameters())))[0].cpu()
        starts = model.chain.starts
        return Said([[one(k, e) for k in range(starts[e], exits + 1)] for e in _entries(model.chain)], route)

    about = {"runtime": runtime.name, "precision": runtime.precision, "versions": versions()}
    name = getattr(model.task, "name", type(model.task).__name__)
    return _table(loader, said, model.chain, model.head_names, name, {**about, **(provenance or {})}, compact)


def tabulate_file(
    session: FileSession,
    runtime: Runtime,
    loader: Iterable[tuple[Inputs, Tensor]],
    provenance: Mapping[str, Any] | None = None,
) -> ExitTable:
    """The same for a self-exiting file, with what its router says where it asks one.

    Exits that the file's policy does not ask cannot be told from the next that is.

    Args:
        session: the file, opened in the runtime.
        runtime: the runtime.
        loader: batches as the model's input prepares them, such as images ``(B, C, H, W)``, and targets ``(B,)``.
        provenance: JSON values that say which data this is.

    Raises:
        UsageError: a file with another policy than thresholds.
    """
    about = session.file.about
    chain = session.file.chain
    own = session.file.policy
    inner = inner_of(own)
    if not isinstance(inner, Threshold):
        raise UsageError("only files with a threshold policy hold all exits: export the model with one")
    if chain.linked:
        raise UsageError("where paths are linked, an answer depends on where a sample entered: tabulate the model")
    never: Policy = replace(inner, thresholds=(None,) * len(inner.thresholds))
    if isinstance(own, Routed):
        never = into(never, 0, chain.num_paths)

    def said(x: Inputs) -> Said:
        return Said([[session(x, never, max_exit=k).output for k in range(len(chain.after))]], session.route(x))

    found = {"runtime": runtime.name, "precision": session.precision, "versions": versions()}
    heads = tuple(e["head"] for e in about["exits"])
    return _table(loader, said, chain, heads, about["task"], {**found, **(provenance or {})})


class Said(NamedTuple):
    """What a model says of a batch.

    Args:
        entered: for each path where samples may enter, what every exit from there on answers ``(n, num_outputs)``; of
            paths that are not linked the first is enough.
        route: what the router says, ``(n, paths)``.
    """

    entered: Sequence[Sequence[Tensor]]
    route: Tensor | None


def _entries(chain: Chain) -> range:
    return range(chain.num_paths if chain.linked else 1)


def _table(
    loader: Iterable[tuple[Inputs, Tensor]],
    said: Callable[[Inputs], Said],
    chain: Chain,
    heads: tuple[str, ...],
    task: str,
    about: Mapping[str, Any],
    compact: bool = False,
) -> ExitTable:
    def piece(said: Said, entry: int, target: Tensor) -> ExitTable:
        start = chain.starts[entry]
        after, names, paths = chain.after[start:], heads[start:], tuple(p - entry for p in chain.paths[start:])
        outputs = torch.stack(list(said.entered[entry]))
        if not torch.isfinite(outputs).all():
            raise DataError("the model answers with values that are not finite (NaN or infinity) on this data")
        return ExitTable(outputs, target.cpu(), after, names, task, about, paths=paths if chain.num_paths > 1 else ())

    pieces: list[ExitTable] = []
    for x, target in loader:
        found = said(loaded(x))
        first, *others = (piece(found, entry, target) for entry in range(len(found.entered)))
        whole = replace(first, route=found.route, entered=tuple(others))
        pieces.append(whole.compact() if compact else whole)
    if not pieces:
        raise UsageError("the loader gave no batch: there is nothing to tabulate")
    return _joined(pieces)


def _joined(pieces: list[ExitTable]) -> ExitTable:
    """One table of several; each piece is let go once it is copied, so that no more than one table is held."""
    first, samples = pieces[0], sum(map(len, pieces))
    with torch.inference_mode(False):
        outputs = first.outputs.new_empty(len(first.after), samples, first.outputs.shape[2])
        largest = None if first.largest is None else first.largest.new_empty(len(first.after), samples)
        targets = torch.cat([piece.targets for piece in pieces])
        route = None if first.route is None else torch.cat([piece.route for piece in pieces if piece.route is not None])
        entered = tuple(_joined(list(parts)) for parts in zip(*(piece.entered for piece in pieces), strict=True))
        filled = samples
        while pieces:
            piece = pieces.pop()
            rows = slice(filled - len(piece), filled)
            outputs[:, rows], filled = piece.outputs, rows.start
            if largest is not None and piece.largest is not None:
                largest[:, rows] = piece.largest
    return replace(first, outputs=outputs, targets=targets, largest=largest, route=route, entered=entered)
