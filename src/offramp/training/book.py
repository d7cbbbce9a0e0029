"""What a stage writes down as it goes: log, validation, checkpoints, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from offramp._progress import say, terminal
from offramp.data import Samples, Stream, loader
from offramp.engine import tabulate
from offramp.errors import DataError
from offramp.model import EarlyExitModel
from offramp.training.checkpoint import save_checkpoint
from offramp.training.log import Log

_LOG_EVERY = 20


@dataclass
class Book:
    """Keeps the book of a stage; all but the first process only look at the loss.

    Args:
        accelerator: tells the first process from the others, and knows the trackers.
        folder: for log and checkpoints.
        what: the name of the stage.
        per_epoch: steps of an epoch.
        epochs: how many.
        validation: what to look at after each epoch.
        batch_size: to look at it with.
        checkpoint_seconds: a checkpoint is written when this many have passed, and at the end of each epoch.
        progress: whether to show anything.
        bar: moves the progress bar.
        log: None in all but the first process.
    """

    accelerator: Accelerator
    folder: Path
    what: str
    per_epoch: int
    epochs: int
    validation: Samples | Stream | None
    batch_size: int
    checkpoint_seconds: float
    progress: bool
    bar: Callable[..., None]
    log: Log | None
    _saved: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)

    def after(
        self,
        step: int,
        values: Mapping[str, Tensor],
        model: EarlyExitModel,
        optimizer: torch.optim.Optimizer,
        kept: nn.Module,
    ) -> dict[str, list[float]] | None:
        """Write down a step, where it is one to be written down.

        Args:
            step: its number, from 1.
            values: what the objective said.
            model: as it is now.
            optimizer: its state.
            kept: the model, or the moving average of its weights.

        Returns:
            at the end of an epoch, what ``validate`` gave in the first process; else None.

        Raises:
            DataError: a loss that is not finite, or a disk that is full.
        """
        epoch, epoch_ends = step / self.per_epoch, step % self.per_epoch == 0
        due = epoch_ends or time.monotonic() - self._saved >= self.checkpoint_seconds
        if step % _LOG_EVERY and not due:
            return None  # reading numbers would wait for the device
        numbers = {name: float(value.detach()) for name, value in values.items()}
        if not np.isfinite(numbers["loss"]):
            raise DataError(f"the loss is not finite at step {step}: lower the learning rate")
        self.bar(step, f"loss {numbers['loss']:.3f}")
        if self.log is None:
            return None
        self._write(step, epoch=epoch, lr=optimizer.param_groups[0]["lr"], **numbers)
        metrics = None
        if epoch_ends:
            metrics = self._end_epoch(step, round(epoch), numbers["loss"], kept)
        if due:
            save_checkpoint(self.folder, step, model, optimizer, kept)
            self._saved = time.monotonic()
        return metrics

    def _end_epoch(self, step: int, epoch: int, loss: float, kept: Any) -> dict[str, list[float]] | None:
        metrics = None if self.validation is None else validate(kept, self.validation, self.batch_size)
        if metrics is not None:
            self._write(step, epoch=float(epoch), validation=metrics)
        if self.progress and not terminal():
            seconds = time.monotonic() - self._began
            say(_line(self.what, epoch, self.epochs, loss, metrics, seconds))
            self._began = time.monotonic()
        return metrics

    def _write(self, step: int, **values: Any) -> None:
        assert self.log is not None
        self.log.write(step=step, **values)
        self.accelerator.log(dict(_flat(values, self.what)), step=step)


def validate(model: EarlyExitModel, validation: Samples | Stream, batch_size: int) -> dict[str, list[float]]:
    """The task's metric at each exit, the final exit last."""
    batches = validation.batches if isinstance(validation, Stream) else loader(validation, model.input, batch_size)
    table = tabulate(model, batches)
    quality = [model.task.quality(output, table.targets).double() for output in table.each()]
    return {model.task.metric: [float(q.mean()) for q in quality]}


def _flat(values: Mapping[str, Any], where: str) -> Any:
    """Numbers by a path, as trackers have them."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}/{name}")
        elif isinstance(value, list):
            yield from _flat({f"exit {k}": inner for k, inner in enumerate(value)}, f"{where}/{name}")
        else:
            yield f"{where}/{name}", value


def _line(
    what: str, epoch: int, epochs: int, loss: float, metrics: dict[str, list[float]] | None, seconds: float
) -> str:
    """What a log says of an epoch; the metric of each exit, the final exit last."""
    quality = "".join(f", {name} {' '.join(f'{v:.4f}' for v in values)}" for name, values in (metrics or {}).items())
    return f"{what}: epoch {epoch} of {epochs}, loss {loss:.4f}{quality}, {seconds:.0f} s"
