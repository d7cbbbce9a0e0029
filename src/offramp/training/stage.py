"""One stage of a run: steps and their schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm.optim
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from offramp._batches import Inputs, count, each, take
from offramp._progress import progress_bar, terminal
from offramp.data import Prepared, Samples, Stream
from offramp.model import EarlyExitModel
from offramp.tasks import Task, direction
from offramp.training._modes import attention_for, only
from offramp.training.book import Book
from offramp.training.checkpoint import checkpoints, load_checkpoint
from offramp.training.feed import Feed, feed
from offramp.training.log import Log, read_log
from offramp.training.objective import Batch, Objective
from offramp.training.schedule import Cosine, Plateau, by_exit, heads_at_rate
from offramp.training.targets import Targets


@dataclass(frozen=True)
class StageRunner:
    """Runs one objective on one set of samples; what its fields mean is said in ``offramp.train``."""

    accelerator: Accelerator
    targets: Targets
    mixing_epochs: int | None
    validation: Samples | Stream | None
    batch_size: int
    accumulate: int
    optimizer: str
    learning_rate: float
    schedule: str
    layer_decay: float | None
    head_rate: float
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
        data: Samples | Stream,
        folder: Path,
        epochs: int,
        what: str,
        pool: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        """Train in place, from the last checkpoint in ``folder`` on.

        Args:
            model: what to train.
            objective: by what.
            data: on what.
            folder: for the log and checkpoints.
            epochs: how many.
            what: the name of the stage.
            pool: the samples that an epoch may draw from; all if not given.

        Raises:
            DataError: a loss that is not finite, or a disk that is full.
            UsageError: a stream with checkpoints already there.
        """
        accelerator = self.accelerator
        folder.mkdir(parents=True, exist_ok=True)
        trained = list(objective.trained(model))
        if not {id(p) for p in trained} & {id(p) for p in model.backbone.model.parameters()}:
            model.read_backbone()  # it may have learned since heads copied something of it
        with only(trained, model), attention_for(accelerator.device, model):
            optimizer = timm.optim.create_optimizer_v2(
                model,
                opt=self.optimizer,
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
                layer_decay=self.layer_decay,
                param_group_fn=by_exit(self.weight_decay) if self.schedule == "plateau" else None,
            )
            if self.head_rate != 1:
                heads_at_rate(optimizer, model.heads, self.head_rate)
            average = None if self.ema is None else ModelEmaV3(model, decay=self.ema, use_warmup=True)
            kept = model if average is None else average.module
            found = checkpoints(folder)
            start = load_checkpoint(found[-1], model, optimizer, kept) if found else 0

            def prepare(samples: Samples) -> Prepared:
                return Prepared(samples, model.input, self.augment, self.seed)

            coming = feed(data, prepare, self.batch_size, epochs, self.seed, start, self.workers, pool)
            schedule = self._schedule(optimizer, coming, model)
            for line in read_log(folder / "log.jsonl"):
                if "validation" in line and line["step"] <= start:
                    schedule.after_epoch(_quality(model.task, line["validation"]))
            skips = getattr(objective, "skips_parameters", False)
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=skips)
            module, stepper, batches = accelerator.prepare(_Step(model, objective), optimizer, coming.batches)
            log = Log(folder / "log.jsonl", start) if accelerator.is_main_process else None
            with progress_bar(what, coming.total, start, self.progress and terminal()) as bar:
                book = self._book(folder, what, coming, bar, log)
                for step, (inputs, targets) in enumerate(coming.over(batches), start=start + 1):
                    if schedule.over:
                        break
                    schedule.before(step - 1)
                    mixes = self.mixing_epochs is None or step <= self.mixing_epochs * coming.per_epoch
                    values = self._learn(module, inputs, targets, step, mixes)
                    if self.clip is not None:
                        accelerator.clip_grad_norm_(trained, self.clip)
                    stepper.step()
                    stepper.zero_grad()
                    if average is not None:
                        average.update(model, step)
                    metrics = book.after(step, values, model, optimizer, kept)
                    if step % coming.per_epoch == 0 and self.schedule == "plateau":
                        schedule.after_epoch(_quality(model.task, _shared(metrics)))
            accelerator.wait_for_everyone()
            accelerator.free_memory()
        if average is not None:
            model.load_state_dict(average.module.state_dict())

    def _learn(self, module: nn.Module, inputs: Inputs, targets: Tensor, step: int, mixes: bool) -> dict[str, Tensor]:
        """The gradients of one step, in as many parts as asked for, and what the objective said of it."""
        _seed_step(self.seed, step, self.accelerator.process_index)
        with self._autocast():
            inputs, targets = self.targets(inputs, targets, mixes)
        samples = count(inputs)
        parts = torch.arange(samples, device=targets.device).chunk(self.accumulate)
        said: list[dict[str, Tensor]] = []
        for number, rows in enumerate(parts, start=1):
            whole = len(parts) == 1
            given = (inputs, targets) if whole else (take(inputs, rows), targets[rows])
            waits = number < len(parts)  # processes add their gradients up once a step
            with self.accelerator.no_sync(module) if waits else nullcontext():
                with self._autocast():
                    values = module(*given, step - 1)
                share = 1.0 if whole else len(rows) / samples
                self.accelerator.backward(values["loss"] * share)
            said.append({name: value.detach() * share for name, value in values.items()})
        return _sum(said)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _book(self, folder: Path, what: str, coming: Feed, bar: Callable[..., None], log: Log | None) -> Book:
        return Book(
            self.accelerator,
            folder,
            what,
            coming.per_epoch,
            coming.epochs,
            self.validation,
            self.batch_size,
            self.checkpoint_seconds,
            self.progress,
            bar,
            log,
        )

    def _schedule(self, optimizer: torch.optim.Optimizer, coming: Feed, model: EarlyExitModel) -> Cosine | Plateau:
        if self.schedule == "plateau":
            return Plateau(optimizer, model.heads)
        return Cosine(optimizer, coming.total, round(self.warmup_epochs * coming.per_epoch))


class _Step(nn.Module):
    """Model and objective as one module, so that a parallel wrapper sees the whole forward pass."""

    def __init__(self, model: EarlyExitModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: Inputs, targets: Tensor, step: int) -> dict[str, Tensor]:
        return self.objective(self.model, Batch(each(_channels_last, inputs), targets, step))


def _channels_last(x: Tensor) -> Tensor:
    """Convolutions are quicker in this layout."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _quality(task: Task, metrics: Mapping[str, Sequence[float]]) -> list[float]:
    """What an epoch was worth at each exit, the more the better."""
    return [direction(task) * value for value in metrics[task.metric]]


def _shared(metrics: Any) -> Any:
    """What the first process found, in all of them."""
    found = [metrics]
    broadcast_object_list(found)
    return found[0]


def _sum(said: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([values[name] for values in said]).sum(0) for name in said[0]}


def _seed_step(seed: int, step: int, process: int) -> None:
    number = int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # timm's mixup draws from it
