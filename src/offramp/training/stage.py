"""One stage of a run: steps, schedule, log, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm.optim
import timm.scheduler
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader

from offramp._progress import progress_bar, say, terminal
from offramp.data import ImageDataset, Samples, loader
from offramp.data.images import TrainingStream
from offramp.engine import tabulate
from offramp.errors import DataError
from offramp.model import EarlyExitModel
from offramp.training._modes import attention_for, only
from offramp.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from offramp.training.log import Log
from offramp.training.objective import Batch, Objective
from offramp.training.targets import Targets

_LOG_EVERY = 20


@dataclass(frozen=True)
class StageRunner:
    """Runs one objective on one set of samples; what its fields mean is said in ``offramp.train``."""

    accelerator: Accelerator
    targets: Targets
    mixing_epochs: int | None
    validation: Samples | None
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    clip: float | None
    precision: str
    augment: Mapping[str, Any] | None
    ema: float | None
    seed: int
    workers: int
    checkpoint_seconds: float
    progress: bool

    def run(
        self,
        model: EarlyExitModel,
        objective: Objective,
        samples: Samples,
        folder: Path,
        epochs: int,
        what: str,
        pool: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        """Train in place, from the last checkpoint in ``folder`` on. Raises ``DataError``: no finite loss, disk full.

        Args:
            model: what to train.
            objective: by what.
            samples: on what.
            folder: for the log and checkpoints.
            epochs: how many.
            what: the name of the progress bar.
            pool: the samples that an epoch may draw from; all if not given.
        """
        accelerator = self.accelerator
        folder.mkdir(parents=True, exist_ok=True)
        trained = list(objective.trained(model))
        with only(trained, model), attention_for(accelerator.device, model):
            optimizer = timm.optim.create_optimizer_v2(
                model, opt=self.optimizer, lr=self.learning_rate, weight_decay=self.weight_decay
            )
            average = None if self.ema is None else ModelEmaV3(model, decay=self.ema, use_warmup=True)
            kept = model if average is None else average.module
            found = checkpoints(folder)
            start = load_checkpoint(found[-1], model, optimizer, kept) if found else 0
            stream = TrainingStream(len(samples), self.batch_size, epochs, self.seed, start, pool)
            total = stream.per_epoch * epochs
            schedule = self._schedule(optimizer, total, stream.per_epoch)
            dataset = ImageDataset(samples, model.data_config, self.augment, self.seed)
            batches = DataLoader(dataset, batch_size=self.batch_size, sampler=stream, num_workers=self.workers)
            skips = getattr(objective, "skips_parameters", False)
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=skips)
            step_module, prepared, batches = accelerator.prepare(_Step(model, objective), optimizer, batches)
            log = Log(folder / "log.jsonl", start) if accelerator.is_main_process else None
            saved = began = time.monotonic()
            with progress_bar(what, total, start, self.progress and terminal()) as bar:
                for step, (images, targets) in enumerate(batches, start=start + 1):
                    schedule.step_update(step - 1)
                    _seed_step(self.seed, step, accelerator.process_index)
                    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                        mixes = self.mixing_epochs is None or step <= self.mixing_epochs * stream.per_epoch
                        values = step_module(*self.targets(images, targets, mixes), step - 1)
                    accelerator.backward(values["loss"])
                    if self.clip is not None:
                        accelerator.clip_grad_norm_(trained, self.clip)
                    prepared.step()
                    prepared.zero_grad()
                    if average is not None:
                        average.update(model, step)
                    epoch, epoch_ends = step / stream.per_epoch, step % stream.per_epoch == 0
                    save_now = epoch_ends or time.monotonic() - saved >= self.checkpoint_seconds
                    if step % _LOG_EVERY and not save_now:
                        continue  # no reading of numbers, which would wait for the device
                    numbers = {name: float(value.detach()) for name, value in values.items()}
                    if not np.isfinite(numbers["loss"]):
                        raise DataError(f"the loss is not finite at step {step}: lower the learning rate")
                    bar(step, f"loss {numbers['loss']:.3f}")
                    if log is None:
                        continue
                    log.write(step=step, epoch=epoch, lr=optimizer.param_groups[0]["lr"], **numbers)
                    metrics = None
                    if epoch_ends and self.validation is not None:
                        metrics = _validate(kept, self.validation, self.batch_size)
                        log.write(step=step, epoch=epoch, validation=metrics)
                    if epoch_ends and self.progress and not terminal():
                        say(_line(what, round(epoch), epochs, numbers["loss"], metrics, time.monotonic() - began))
                        began = time.monotonic()
                    if save_now:
                        save_checkpoint(folder, step, model, optimizer, kept)
                        saved = time.monotonic()
            accelerator.wait_for_everyone()
            accelerator.free_memory()
        if average is not None:
            model.load_state_dict(average.module.state_dict())

    def _schedule(self, optimizer: torch.optim.Optimizer, total: int, per_epoch: int) -> Any:
        return timm.scheduler.CosineLRScheduler(
            optimizer,
            t_initial=max(total, 1),
            warmup_t=min(round(self.warmup_epochs * per_epoch), max(total - 1, 0)),
            warmup_lr_init=0.0,
            warmup_prefix=True,
            t_in_epochs=False,
        )


class _Step(nn.Module):
    """Model and objective as one module, so that a parallel wrapper sees the whole forward pass."""

    def __init__(self, model: EarlyExitModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, images: Tensor, targets: Tensor, step: int) -> dict[str, Tensor]:
        if images.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)  # convolutions are quicker in this layout
        return self.objective(self.model, Batch(images, targets, step))


def _validate(model: EarlyExitModel, validation: Samples, batch_size: int) -> dict[str, Any]:
    table = tabulate(model, loader(validation, model.data_config, batch_size))
    quality = [model.task.quality(output, table.targets).double() for output in table.outputs]
    return {model.task.metric: [float(q.mean()) for q in quality]}


def _line(
    what: str, epoch: int, epochs: int, loss: float, metrics: dict[str, list[float]] | None, seconds: float
) -> str:
    """What a log says of an epoch; the metric of each exit, the final exit last."""
    quality = "".join(f", {name} {' '.join(f'{v:.4f}' for v in values)}" for name, values in (metrics or {}).items())
    return f"{what}: epoch {epoch} of {epochs}, loss {loss:.4f}{quality}, {seconds:.0f} s"


def _seed_step(seed: int, step: int, process: int) -> None:
    number = int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # timm's mixup draws from it
