"""The one training loop: on one processor, one GPU, or several processes under ``accelerate launch``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm.optim
import timm.scheduler
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader

from offramp._device import device_named
from offramp._progress import progress_bar
from offramp.data import ImageDataset, Samples, loader
from offramp.data.images import TrainingStream
from offramp.engine import tabulate
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.registry import OBJECTIVES
from offramp.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from offramp.training.log import Log
from offramp.training.objective import Objective

_LOG_EVERY = 20


def train(
    model: EarlyExitModel,
    samples: Samples,
    objective: str | Objective = "joint",
    *,
    folder: str | Path,
    validation: Samples | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    warmup_epochs: float = 1.0,
    clip: float | None = 1.0,
    precision: str = "bf16",
    augment: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    checkpoint_seconds: float = 60.0,
    progress: bool = False,
) -> None:
    """Train a model in place and leave it in evaluation mode.

    AdamW, linear warm-up, cosine decay to zero, gradient clipping, bf16 autocast. The order of the samples, their
    augmentation and dropout are functions of seed and step alone: a run that was killed and is started again with the
    same arguments goes on from its last complete checkpoint and ends as if it had not been killed.

    Args:
        model: what to train.
        samples: to train on.
        objective: a name from ``offramp list objectives``, or an objective.
        folder: for ``log.jsonl`` and checkpoints; a run that is there is resumed.
        validation: to look at after each epoch; nothing is chosen by it.
        epochs: how many.
        batch_size: of a step, all processes together.
        learning_rate: at the top of the schedule.
        weight_decay: on matrices; biases, norms and what timm exempts have none.
        warmup_epochs: how long the learning rate rises, in epochs.
        clip: the largest norm of the gradient; None clips nothing.
        precision: ``bf16`` or ``fp32``.
        augment: arguments for ``timm.data.create_transform`` in training; None for the evaluation transform.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: processes that read images.
        checkpoint_seconds: a checkpoint is written when this many have passed, and at the end of each epoch.
        progress: whether to show a progress bar.

    Raises:
        UsageError: an unknown objective or precision, a batch larger than the data, a GPU where there is none.
        DataError: a loss that is not finite, or a disk that is full.
    """
    if precision not in ("bf16", "fp32"):
        raise UsageError(f"precision is {precision!r}; it is bf16 or fp32")
    if batch_size > len(samples):
        raise UsageError(f"a batch of {batch_size} from {len(samples)} samples: no step can be made")
    accelerator = _accelerator(device)
    goal = _objective(objective)
    trained = list(goal.trained(model))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _only(trained, model), _attention_for(accelerator.device, model):
        optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=learning_rate, weight_decay=weight_decay)
        found = checkpoints(folder)
        start = load_checkpoint(found[-1], model, optimizer) if found else 0
        stream = TrainingStream(len(samples), batch_size, epochs, seed, start)
        total = stream.per_epoch * epochs
        schedule = timm.scheduler.CosineLRScheduler(
            optimizer,
            t_initial=max(total, 1),
            warmup_t=min(round(warmup_epochs * stream.per_epoch), max(total - 1, 0)),
            warmup_lr_init=0.0,
            warmup_prefix=True,
            t_in_epochs=False,
        )
        dataset = ImageDataset(samples, model.data_config, augment, seed)
        batches = DataLoader(dataset, batch_size=batch_size, sampler=stream, num_workers=workers)
        step_module, prepared, batches = accelerator.prepare(_Step(model, goal), optimizer, batches)
        log = Log(folder / "log.jsonl", start) if accelerator.is_main_process else None
        saved = time.monotonic()
        with progress_bar("training", total, start, progress and accelerator.is_main_process) as bar:
            for step, batch in enumerate(batches, start=start + 1):
                schedule.step_update(step - 1)
                _seed_step(seed, step, accelerator.process_index)
                with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16"):
                    values = step_module(*batch)
                accelerator.backward(values["loss"])
                if clip is not None:
                    accelerator.clip_grad_norm_([p for part in trained for p in part.parameters()], clip)
                prepared.step()
                prepared.zero_grad()
                epoch, epoch_ends = step / stream.per_epoch, step % stream.per_epoch == 0
                save_now = epoch_ends or time.monotonic() - saved >= checkpoint_seconds
                if step % _LOG_EVERY and not save_now:
                    continue  # no reading of numbers, which would wait for the device
                numbers = {name: float(value.detach()) for name, value in values.items()}
                if not np.isfinite(numbers["loss"]):
                    raise DataError(f"the loss is not finite at step {step}: lower the learning rate")
                bar(step, f"loss {numbers['loss']:.3f}")
                if log is None:
                    continue
                log.write(step=step, epoch=epoch, lr=optimizer.param_groups[0]["lr"], **numbers)
                if epoch_ends and validation is not None:
                    log.write(step=step, epoch=epoch, validation=_validate(model, validation, batch_size))
                if save_now:
                    save_checkpoint(folder, step, model, optimizer)
                    saved = time.monotonic()
        accelerator.wait_for_everyone()
    model.eval()


class _Step(nn.Module):
    """Model and objective as one module, so that a parallel wrapper sees the whole forward pass."""

    def __init__(self, model: EarlyExitModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        return self.objective(self.model, (x, target))


def _objective(name_or_object: str | Objective) -> Objective:
    found = OBJECTIVES.resolve(name_or_object)
    return found() if isinstance(found, type) else found


def _accelerator(device: str) -> Accelerator:
    # split_batches: batch_size is that of the step, whatever the number of processes. Autocast is torch's own, below:
    # accelerate fixes its precision once for the whole process.
    return Accelerator(
        cpu=device_named(device).type == "cpu",
        mixed_precision="no",
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
    )


def _validate(model: EarlyExitModel, validation: Samples, batch_size: int) -> dict[str, Any]:
    table = tabulate(model, loader(validation, model.data_config, batch_size))
    quality = [model.task.quality(output, table.targets).double() for output in table.outputs]
    return {model.task.metric: [float(q.mean()) for q in quality]}


def _seed_step(seed: int, step: int, process: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0]))


@contextmanager
def _only(trained: list[nn.Module], model: nn.Module) -> Iterator[None]:
    """Inside, only these modules learn and are in training mode; outside, gradients are asked for as before."""
    wanted = {p: p.requires_grad for p in model.parameters()}
    model.eval().requires_grad_(False)
    for part in trained:
        part.train().requires_grad_(True)
    try:
        yield
    finally:
        for p, value in wanted.items():
            p.requires_grad_(value)


@contextmanager
def _attention_for(device: torch.device, model: nn.Module) -> Iterator[None]:
    """On a processor, timm's plain attention: torch's fused one has a very slow backward pass at short sequences."""
    fused: list[Any] = [m for m in model.modules() if getattr(m, "fused_attn", False)] if device.type == "cpu" else []
    for m in fused:
        m.fused_attn = False
    try:
        yield
    finally:
        for m in fused:
            m.fused_attn = True
