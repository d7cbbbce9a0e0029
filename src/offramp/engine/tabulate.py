"""One pass over a data set: every exit's output for every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from offramp._batches import Inputs, count, loaded, to
from offramp.engine.runtime import Runtime
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold
from offramp.types import ExitTable
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

    def outputs(x: Inputs) -> Iterable[Tensor]:
        with evaluating(model), torch.inference_mode():
            return [model.task.keep(o.float()).cpu() for o in model(to(x, like))]

    precision = "bf16" if like.dtype == torch.bfloat16 else "fp32"
    about = {"runtime": "torch", "precision": precision, "device": str(like.device), "versions": versions()}
    name = getattr(model.task, "name", type(model.task).__name__)
    return _table(loader, outputs, model.after, model.head_names, name, {**about, **(provenance or {})}, compact)


def tabulate_in(
    runtime: Runtime,
    model: EarlyExitModel,
    loader: Iterable[tuple[Inputs, Tensor]],
    provenance: Mapping[str, Any] | None = None,
    compact: bool = False,
) -> ExitTable:
    """The same as computed by a runtime, for thresholds that belong to it and to its precision.

    Every sample is sent to every exit in turn, so this takes a few times as long as ``tabulate``. Arguments as there.
    """
    exits = len(model.exits)
    score = model.task.scores[0]
    session = runtime.dynamic(model, Forced((0,), exits, score))

    def outputs(x: Inputs) -> Iterable[Tensor]:
        return [session(x, Forced((k,) * count(x), exits, score)).output.cpu() for k in range(exits + 1)]

    about = {"runtime": runtime.name, "precision": runtime.precision, "versions": versions()}
    name = getattr(model.task, "name", type(model.task).__name__)
    return _table(loader, outputs, model.after, model.head_names, name, {**about, **(provenance or {})}, compact)


def tabulate_file(
    session: FileSession,
    runtime: Runtime,
    loader: Iterable[tuple[Inputs, Tensor]],
    provenance: Mapping[str, Any] | None = None,
) -> ExitTable:
    """The same for a self-exiting file. Exits that its policy does not ask cannot be told from the next that is.

    Args:
        session: the file, opened in the runtime.
        runtime: the runtime.
        loader: batches as the model's input prepares them, such as images ``(B, C, H, W)``, and targets ``(B,)``.
        provenance: JSON values that say which data this is.

    Raises:
        UsageError: a file with another policy than thresholds.
    """
    about = session.file.about
    own = session.file.policy
    if not isinstance(own, Threshold):
        raise UsageError("only files with a threshold policy hold all exits: export the model with one")
    never = replace(own, thresholds=(None,) * len(own.thresholds))
    after, heads = zip(*((e["after"], e["head"]) for e in about["exits"]), strict=True)

    def outputs(x: Inputs) -> Iterable[Tensor]:
        return [session(x, never, max_exit=k).output for k in range(len(after))]

    found = {"runtime": runtime.name, "precision": session.precision, "versions": versions()}
    return _table(loader, outputs, after, heads, about["task"], {**found, **(provenance or {})})


def _table(
    loader: Iterable[tuple[Inputs, Tensor]],
    outputs: Callable[[Inputs], Iterable[Tensor]],
    after: tuple[int, ...],
    heads: tuple[str, ...],
    task: str,
    about: Mapping[str, Any],
    compact: bool = False,
) -> ExitTable:
    pieces: list[ExitTable] = []
    for x, target in loader:
        piece = ExitTable(torch.stack(list(outputs(loaded(x)))), target.cpu(), after, heads, task, about)
        if not torch.isfinite(piece.outputs).all():
            raise DataError("the model answers with values that are not finite (NaN or infinity) on this data")
        pieces.append(piece.compact() if compact else piece)
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
        filled = samples
        while pieces:
            piece = pieces.pop()
            rows = slice(filled - len(piece), filled)
            outputs[:, rows], filled = piece.outputs, rows.start
            if largest is not None and piece.largest is not None:
                largest[:, rows] = piece.largest
    return ExitTable(outputs, targets, first.after, first.heads, first.task, first.provenance, largest)
