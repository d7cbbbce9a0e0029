"""A teacher: another network, whose answers any objective can learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional

from offramp.errors import UsageError


class Teacher:
    """A trained timm model that answers for every image that the student sees, mixed and augmented as it is.

    The targets of a step become ``(1 − weight) · targets + weight · answers``; for classes the answers are
    probabilities at ``temperature``. That is distillation with the teacher's loss inside the ordinary one (2106.05237
    calls the same view of an image for both "consistent teaching"), and so every objective can have it.

    Args:
        model: a timm model, or anything that maps images to outputs.
        weight: of the teacher's answers, 0 to 1.
        temperature: of its probabilities.
        data_config: timm's data configuration of the teacher: where its normalisation or size is another than the
            student's, images are converted. The model's own if not given.

    Raises:
        UsageError: a weight outside 0 to 1, a temperature that is not above 0.
    """

    def __init__(
        self,
        model: nn.Module,
        weight: float = 0.5,
        temperature: float = 1.0,
        data_config: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= weight <= 1 or not temperature > 0:
            raise UsageError(f"a teacher's weight is 0 to 1, its temperature above 0; not {weight} and {temperature}")
        self.model = model.eval().requires_grad_(False)
        self.weight, self.temperature = weight, temperature
        self.data_config = dict(resolve_model_data_config(model) if data_config is None else data_config)

    def __call__(self, images: Tensor, data_config: Mapping[str, Any]) -> Tensor:
        """The teacher's outputs ``(B, num_outputs)`` for images ``(B, C, H, W)`` prepared by ``data_config``."""
        with torch.no_grad():
            return self.model(self._converted(images, data_config)).float()

    def _converted(self, x: Tensor, student: Mapping[str, Any]) -> Tensor:
        mean, std, own_mean, own_std = (
            x.new_tensor(config[key])[:, None, None]
            for config in (student, self.data_config)
            for key in ("mean", "std")
        )
        if not (torch.equal(mean, own_mean) and torch.equal(std, own_std)):
            x = (x * std + mean - own_mean) / own_std
        size = tuple(self.data_config["input_size"][1:])
        if tuple(x.shape[2:]) != size:
            x = functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        return x
