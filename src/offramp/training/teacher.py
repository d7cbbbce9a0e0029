"""A teacher: another network, whose answers any objective can learn from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offramp._batches import Inputs
from offramp.errors import UsageError
from offramp.inputs import ImageInput, Input


class Teacher:
    """A trained timm model that answers for every sample that the student sees, mixed and augmented as it is.

    The targets of a step become ``(1 − weight) · targets + weight · answers``; for classes the answers are
    probabilities at ``temperature``. That is distillation with the teacher's loss inside the ordinary one (2106.05237
    calls the same view of an image for both "consistent teaching"), and so every objective can have it.

    Args:
        model: a timm model, or anything that maps images to outputs.
        weight: of the teacher's answers, 0 to 1.
        temperature: of its probabilities.
        model_input: what the teacher reads: where its normalisation or size is another than the student's, inputs are
            converted. timm's data configuration of the model if not given.

    Raises:
        UsageError: a weight outside 0 to 1, a temperature that is not above 0.
    """

    def __init__(
        self,
        model: nn.Module,
        weight: float = 0.5,
        temperature: float = 1.0,
        model_input: Input | None = None,
    ) -> None:
        if not 0 <= weight <= 1 or not temperature > 0:
            raise UsageError(f"a teacher's weight is 0 to 1, its temperature above 0; not {weight} and {temperature}")
        self.model = model.eval().requires_grad_(False)
        self.weight, self.temperature = weight, temperature
        self.input = ImageInput.for_backbone(model) if model_input is None else model_input

    def __call__(self, x: Inputs, student: Input) -> Tensor:
        """The teacher's outputs ``(B, num_outputs)`` for a batch as ``student`` prepares it."""
        with torch.no_grad():
            return self.model(student.converted(x, self.input)).float()
