"""The one training loop: on one processor, one GPU, or several processes under ``accelerate launch``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import timm.optim
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DataLoaderConfiguration
from torch import nn

from offramp._device import current_device
from offramp.data import Data, Samples, Stream, as_samples_or_stream
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.registry import OBJECTIVES, unknown
from offramp.training._modes import activations
from offramp.training.curriculum import Curriculum, difficulties
from offramp.training.objective import Objective, Plan, Stage
from offramp.training.same_run import definition, frozen, same_run
from offramp.training.schedule import SCHEDULES, check_plateau
from offramp.training.stage import StageRunner
from offramp.training.targets import Targets
from offramp.training.teacher import Teacher


def train(
    model: EarlyExitModel,
    samples: Data | Stream,
    objective: str | Objective | Plan = "joint",
    *,
    folder: str | Path,
    validation: Data | Stream | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    accumulate: int = 1,
    optimizer: str = "adamw",
    learning_rate: float = 1e-3,
    schedule: str = "cosine",
    layer_decay: float | None = None,
    head_rate: float = 1.0,
    weight_decay: float = 0.05,
    warmup_epochs: float = 1.0,
    clip: float | None = 1.0,
    precision: str = "bf16",
    augment: Mapping[str, Any] | None = None,
    mixing: Mapping[str, Any] | None = None,
    mixing_epochs: int | None = None,
    label_smoothing: float = 0.0,
    ema: float | None = None,
    teacher: Teacher | None = None,
    curriculum: Curriculum | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    checkpoint_seconds: float = 60.0,
    progress: bool = False,
    tracker: str | None = None,
    activation_checkpointing: bool = False,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Train a model in place and leave it in evaluation mode.

    AdamW or another of timm's optimisers, linear warm-up, cosine decay to zero, gradient clipping, bf16 autocast. The
    order of the samples, their augmentation and dropout are functions of seed and step alone: a run that was killed and
    is started again with the same arguments goes on from its last complete checkpoint and ends as if it had not been
    killed. What defines the run stands in ``folder/run.json``; a call that asks for another one is refused. An
    objective of several stages shares the epochs out among them; each stage has an optimiser and a schedule of its own.

    Args:
        model: what to train.
        samples: to train on: ``Samples``, a map-style data set of torch or of Hugging Face, a loader of one
            (``data.as_samples``), or a loader with an order of its own. The order of such a stream cannot be repeated:
            its run cannot be resumed, has the batches that it gives, and no augmentation but its own.
        objective: a name from ``offramp list objectives``, or an objective or plan.
        folder: for ``run.json``, ``log.jsonl`` and checkpoints (of each stage, where there are several); the same run
            is resumed there, and ends with its own weights, whatever the model's are.
        validation: to look at after each epoch, given as ``samples`` are; nothing is chosen by it.
        epochs: how many, over all stages; each stage has at least one.
        batch_size: of a step, all processes together.
        accumulate: in how many parts a step is computed, one after the other, for want of memory; the gradient is
            that of the whole step, and batch norms see the parts.
        optimizer: a name of timm's (``timm.optim.list_optimizers()``).
        learning_rate: at the top of the schedule.
        schedule: ``cosine``; or ``plateau``, for objectives that train heads alone: each exit's rate falls, and it
            stops, when it does not gain on ``validation`` (``training.schedule.Plateau``), after ``epochs`` at most.
        layer_decay: by which the learning rate is multiplied from each block to the one before it, as timm's
            ``layer_decay``; a head learns as the block behind it.
        head_rate: times the learning rate for the heads of early exits, which are new where a backbone has learned.
        weight_decay: on matrices; biases, norms and what timm exempts have none.
        warmup_epochs: how long the learning rate rises, in epochs, before it falls by the cosine.
        clip: the largest norm of the gradient; None clips nothing.
        precision: ``bf16`` or ``fp32``.
        augment: arguments for ``timm.data.create_transform`` in training; None for the evaluation transform.
        mixing: arguments for ``timm.data.Mixup``: mixup and cutmix.
        mixing_epochs: for how many epochs of a stage images are mixed; for all if not given.
        label_smoothing: how much of a label's probability is spread over all classes.
        ema: decay of an exponential moving average of the weights, which is then what is validated and kept.
        teacher: another network whose answers are mixed into the targets.
        curriculum: easy samples first; needs a teacher, whose loss says what is easy.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        workers: processes that read images.
        checkpoint_seconds: a checkpoint is written when this many have passed, and at the end of each epoch.
        progress: whether to show a progress bar; where there is no terminal, one line per epoch.
        tracker: a tracker that accelerate knows (``tensorboard``, ``wandb``, …), beside the log; it writes to
            ``folder``.
        activation_checkpointing: whether the activations of blocks are computed again on the way back, for less memory
            and more time.
        origin: JSON values that say where the model's first weights come from, where they are not random.

    Raises:
        UsageError: a folder that holds another run, and the sentence names what differs; an unknown objective or
            precision, a batch larger than the data or odd where images are mixed, fewer epochs than stages, a
            curriculum without a teacher, a GPU where there is none, a tracker that is not installed, a stream where
            samples are read by number (a curriculum, ``copycat``) or where its run would be resumed.
        DataError: a loss that is not finite, or a disk that is full.
    """
    if precision not in ("bf16", "fp32"):
        raise UsageError(f"precision is {precision!r}; it is bf16 or fp32")
    if optimizer not in (known := [str(name) for name in timm.optim.list_optimizers()]):
        raise UsageError(unknown("optimiser of timm's", optimizer, known))
    data = as_samples_or_stream(samples)
    validation = None if validation is None else as_samples_or_stream(validation)
    if isinstance(data, Stream) and (augment is not None or curriculum is not None):
        raise UsageError("a stream is taken as it comes: augment and curriculum are for samples that have numbers")
    if schedule not in SCHEDULES:
        raise UsageError(unknown("schedule", schedule, SCHEDULES))
    if schedule == "plateau" and (validation is None or layer_decay is not None or head_rate != 1):
        raise UsageError("the schedule plateau needs validation data, and has neither layer_decay nor head_rate")
    if not head_rate > 0:
        raise UsageError(f"head_rate is {head_rate:g}; it is above 0")
    if accumulate < 1 or accumulate > batch_size:
        raise UsageError(f"a batch of {batch_size} cannot be computed in {accumulate} parts")
    if curriculum is not None and teacher is None:
        raise UsageError("a curriculum needs a teacher: its loss says which samples are easy")
    accelerator = _accelerator(device, tracker, Path(folder))
    if mixing and batch_size % (2 * accelerator.num_processes):
        raise UsageError(f"mixing pairs the images of a batch, and {batch_size} do not make pairs in each process")
    model.to(accelerator.device)
    if teacher is not None:
        teacher.model.to(accelerator.device)
    folder, goal = Path(folder), _goal(objective)
    run = definition(
        model,
        data,
        goal,
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "schedule": schedule,
            "layer_decay": layer_decay,
            "head_rate": head_rate,
            "weight_decay": weight_decay,
            "warmup_epochs": warmup_epochs,
            "clip": clip,
            "precision": precision,
            "augment": augment,
            "mixing": mixing,
            "mixing_epochs": mixing_epochs,
            "label_smoothing": label_smoothing,
            "ema": ema,
            "teacher": teacher,
            "curriculum": curriculum,
            "seed": seed,
            "origin": origin,
        },
    )
    runner = StageRunner(
        accelerator=accelerator,
        targets=Targets(model, mixing, label_smoothing, teacher),
        mixing_epochs=mixing_epochs,
        validation=validation,
        batch_size=batch_size,
        accumulate=accumulate,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        layer_decay=layer_decay,
        head_rate=head_rate,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        clip=clip,
        precision=precision,
        augment=augment,
        ema=ema,
        seed=seed,
        workers=workers,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress and accelerator.is_main_process,
    )
    trained: list[nn.Parameter] = []
    with accelerator.main_process_first(), same_run(folder, run):
        stages = list(goal.stages(model, data, folder)) if hasattr(goal, "stages") else [Stage(goal)]
        shares = _share_out(epochs, [stage.share for stage in stages])
        for stage in stages:
            trained += stage.objective.trained(model)  # it refuses what it cannot train
            if schedule == "plateau":
                check_plateau(model, trained)
            own = stage.samples or data
            if isinstance(own, Samples) and batch_size > (count := len(own)):
                raise UsageError(f"a batch of {batch_size} from {count} samples: no step can be made")
        with same_run(folder, frozen(model, trained)):
            pass
    for number, (stage, share) in enumerate(zip(stages, shares, strict=True), start=1):
        one = len(stages) == 1
        place, name = (folder, "training") if one else (folder / f"stage-{number}", f"stage {number} of {len(stages)}")
        own = stage.samples or data
        pool = None
        if curriculum is not None and teacher is not None and isinstance(own, Samples):
            pool = partial(curriculum.pool, difficulties(teacher, model, own, batch_size), epochs=share)
        with activations(model, again=activation_checkpointing):
            runner.run(model, stage.objective, own, place, share, name, pool)
    if tracker is not None:
        accelerator.end_training()
    model.eval()


def _goal(objective: str | Objective | Plan) -> Any:
    found: Any = OBJECTIVES.resolve(objective)
    return found() if isinstance(found, type) else found


def _share_out(epochs: int, shares: Sequence[float]) -> list[int]:
    """Whole epochs for each stage, in proportion, at least one for each where there are any."""
    if epochs and epochs < len(shares):
        raise UsageError(f"{epochs} epochs for {len(shares)} stages: each needs at least one")
    ends = (np.cumsum([0.0, *shares]) / sum(shares) * epochs).round().astype(int).tolist()
    for i in range(1, len(ends) - 1 if epochs else 0):
        ends[i] = min(max(ends[i], ends[i - 1] + 1), epochs - (len(shares) - i))
    return [b - a for a, b in pairwise(ends)]


def _accelerator(device: str, tracker: str | None, folder: Path) -> Accelerator:
    # split_batches: batch_size is that of the step, whatever the number of processes. Autocast is torch's own, in the
    # stage: accelerate fixes its precision once for the whole process.
    if tracker is not None and tracker not in [str(kind) for kind in get_available_trackers()]:
        raise UsageError(f"the tracker {tracker!r} is unknown to accelerate, or its package is not installed")
    accelerator = Accelerator(
        log_with=tracker,
        project_dir=folder,
        cpu=current_device(device).type == "cpu",
        mixed_precision="no",
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
    )
    if tracker is not None:
        accelerator.init_trackers("offramp")
    return accelerator
