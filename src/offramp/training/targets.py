"""What a step learns from: images and targets after mixing, smoothing and teaching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.data import Mixup
from torch import Tensor

from offramp._batches import Inputs
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.training.teacher import Teacher


class Targets:
    """Label smoothing, mixup and cutmix by timm, and a teacher, in this order; each is left out where not asked for.

    Args:
        model: whose task and input count.
        mixing: arguments for ``timm.data.Mixup``, such as ``mixup_alpha``, ``cutmix_alpha`` and ``prob``.
            timm mixes images; the targets are mixed as it says it mixed the batch, so they may be soft or numbers.
        label_smoothing: how much of a label's probability is spread over all classes.
        teacher: whose answers are mixed into the targets.

    Raises:
        UsageError: smoothing for a task without classes, or arguments that timm does not know.
    """

    def __init__(
        self,
        model: EarlyExitModel,
        mixing: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.teacher = model, teacher
        self.mixing, self.label_smoothing = dict(mixing or {}), label_smoothing
        model.task.soft(torch.zeros(1, dtype=torch.int64), model.num_outputs, label_smoothing)
        try:
            self._mixup(2)
        except TypeError as error:
            raise UsageError(f"mixing: timm's Mixup says: {error}") from error

    def __call__(self, inputs: Inputs, targets: Tensor, mixes: bool = True) -> tuple[Inputs, Tensor]:
        """Inputs, such as images ``(B, C, H, W)``, and targets ``(B,)`` or ``(B, classes)`` to the same, changed.

        Args:
            inputs: of one step.
            targets: theirs.
            mixes: whether inputs are mixed, where mixing was asked for.
        """
        task = self.model.task
        if self.mixing or self.label_smoothing:
            targets = task.soft(targets, self.model.num_outputs, self.label_smoothing)
        if self.mixing and mixes:
            # each sample is a class of its own, so that timm's mixed targets are the weights of the mixture
            if not isinstance(inputs, Tensor):
                raise UsageError("mixing is for samples of one tensor, such as images")
            samples = torch.arange(len(inputs), device=inputs.device)
            if len(inputs) % 2:
                raise UsageError(f"mixing pairs the samples of a batch, and this one has {len(inputs)}")
            inputs, weights = self._mixup(len(inputs))(inputs.clone(), samples)
            targets = torch.tensordot(weights, targets, 1)
        if self.teacher is not None:
            answers = self.teacher(inputs, self.model.input)
            targets = task.taught(targets, answers, self.teacher.weight, self.teacher.temperature)
        return inputs, targets

    def _mixup(self, classes: int) -> Mixup:
        return Mixup(**{"mixup_alpha": 0.0, **self.mixing, "label_smoothing": 0.0, "num_classes": classes})
