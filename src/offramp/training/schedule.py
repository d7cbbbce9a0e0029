"""How the learning rate goes along a stage, and when the stage is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import timm.scheduler
import torch
from torch import nn

from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.training._modes import check_one_path

SCHEDULES = ("cosine", "plateau")


class Cosine:
    """Linear warm-up, then half a cosine to zero, by step.

    Args:
        optimizer: whose rates it sets.
        total: steps of the stage.
        warmup: steps of the warm-up.
    """

    over = False

    def __init__(self, optimizer: torch.optim.Optimizer, total: int, warmup: int) -> None:
        self._inner = timm.scheduler.CosineLRScheduler(
            optimizer,
            t_initial=max(total, 1),
            warmup_t=min(warmup, max(total - 1, 0)),
            warmup_lr_init=0.0,
            warmup_prefix=True,
            t_in_epochs=False,
        )

    def before(self, step: int) -> None:
        """Set the rates of a step; the first is 0."""
        self._inner.step_update(step)

    def after_epoch(self, quality: Sequence[float]) -> None:
        """Epochs change nothing."""


@dataclass
class _Exit:
    """What is known of an exit: its best quality, and for how many epochs it has not gained."""

    best: float = -math.inf
    best_by_far: float = -math.inf
    waits: int = 0
    since_cut: int = 0


class Plateau:
    """The learning rate of each exit by what it is worth on validation data (2106.15183, as its notebooks train).

    An exit that has not gained for two epochs learns at 0.6 times the rate from then on; one that has not gained for
    five learns no more. The stage is over when none learns. There is no warm-up. The thresholds of a gain, 0.0001 for
    the rate and 0 for the end, are Keras', in which the paper's heads were trained; that each exit has a rate of its
    own stands for heads that are trained one by one.

    Args:
        optimizer: its groups say by ``exit`` whose parameters they hold.
        heads: of the exits.
    """

    factor, patience, stop, floor, gain = 0.6, 2, 5, 1e-7, 1e-4

    def __init__(self, optimizer: torch.optim.Optimizer, heads: nn.ModuleList) -> None:
        self.optimizer, self.heads = optimizer, heads
        self._exits = [_Exit() for _ in heads]
        self._stopped = [False] * len(heads)

    @property
    def over(self) -> bool:
        """Whether no exit learns any more."""
        return all(self._stopped)

    def before(self, step: int) -> None:
        """Steps change nothing."""

    def after_epoch(self, quality: Sequence[float]) -> None:
        """Set the rates of the next epoch.

        Args:
            quality: of each exit on validation data, the more the better, the final exit last.
        """
        for k, known in enumerate(self._exits):
            if self._stopped[k]:
                continue
            found = quality[k]
            known.waits = 0 if found > known.best else known.waits + 1
            known.best = max(known.best, found)
            known.since_cut = 0 if found > known.best_by_far + self.gain else known.since_cut + 1
            if known.since_cut == 0:
                known.best_by_far = found
            if known.waits >= self.stop:
                self._stopped[k] = True
                self.heads[k].eval()  # or its running statistics would go on moving
                self._set(k, lambda rate: 0.0)
            elif known.since_cut >= self.patience:
                known.since_cut = 0
                self._set(k, lambda rate: max(rate * self.factor, min(rate, self.floor)))

    def _set(self, k: int, change: Callable[[float], float]) -> None:
        for group in self.optimizer.param_groups:
            if group["exit"] == k:
                group["lr"] = change(group["lr"])


def by_exit(weight_decay: float) -> Callable[[Any], list[dict[str, Any]]]:
    """From a model to groups for an optimiser, those of each exit apart; biases and norms have no weight decay."""

    def groups(model: EarlyExitModel) -> list[dict[str, Any]]:
        found = []
        for k, head in enumerate(model.heads):
            learning = [p for p in head.parameters() if p.requires_grad]
            for decay, own in (
                (weight_decay, [p for p in learning if p.dim() > 1]),
                (0.0, [p for p in learning if p.dim() <= 1]),
            ):
                found += [{"params": own, "weight_decay": decay, "exit": k}] if own else []
        return found

    return groups


def heads_at_rate(optimizer: torch.optim.Optimizer, heads: nn.Module, rate: float) -> None:
    """Give heads groups of their own in an optimiser, which learn at so many times the rate that they would."""
    own = {id(p) for p in heads.parameters()}
    for group in list(optimizer.param_groups):
        inside = [p for p in group["params"] if id(p) in own]
        if not inside:
            continue
        scale = rate * group.get("lr_scale", 1.0)  # which timm's schedules heed
        group["params"] = [p for p in group["params"] if id(p) not in own]
        optimizer.add_param_group({**group, "params": inside, "lr_scale": scale})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def check_plateau(model: EarlyExitModel, trained: Iterable[nn.Parameter]) -> None:
    """Raise ``UsageError`` unless heads alone are trained, each on one path."""
    check_one_path(model, "the schedule plateau")
    heads = {id(p) for p in model.heads.parameters()}
    if not all(id(p) in heads for p in trained):
        raise UsageError("the schedule plateau is for objectives that train heads alone, such as frozen")
