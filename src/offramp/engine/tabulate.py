"""One pass over a data set: every exit's output for every sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.types import ExitTable
from offramp.versions import versions


def tabulate(
    model: EarlyExitModel,
    loader: Iterable[tuple[Tensor, Tensor]],
    provenance: Mapping[str, Any] | None = None,
) -> ExitTable:
    """Run all exits on all samples and keep what they said; decisions are then made from the table.

    Args:
        model: the model; it computes in evaluation mode, whatever mode it is in.
        loader: batches of images ``(B, C, H, W)`` and targets ``(B,)``.
        provenance: JSON values that say which data this is; they travel with the table.

    Raises:
        UsageError: a loader without a batch.
        DataError: outputs that are not finite.
    """
    device = next(model.parameters()).device
    outputs, targets = [], []
    with evaluating(model), torch.inference_mode():
        for x, target in loader:
            outputs.append(torch.stack([o.float().cpu() for o in model(x.to(device))]))
            targets.append(target.cpu())
    if not outputs:
        raise UsageError("the loader gave no batch: there is nothing to tabulate")
    with torch.inference_mode(False):
        table = torch.cat(outputs, dim=1).clone()
    if not torch.isfinite(table).all():
        raise DataError("the model answers with values that are not finite (NaN or infinity) on this data")
    about = {"runtime": "torch", "precision": "fp32", "device": str(device), "versions": versions()}
    name = getattr(model.task, "name", type(model.task).__name__)
    return ExitTable(table, torch.cat(targets), model.after, model.head_names, name, {**about, **(provenance or {})})
