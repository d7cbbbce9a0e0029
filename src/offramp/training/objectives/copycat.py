"""Copycat: heads learn from the trained backbone's answers on images that nobody labelled, then from true labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from offramp._files import atomic_folder
from offramp.data import Data, Samples, Stream, as_samples, loader, open_splits
from offramp.engine import tabulate
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.registry import unknown
from offramp.training.objective import Stage
from offramp.training.objectives.frozen import Frozen

_LABELS = ("hard", "soft", "both")


class Copycat:
    """CopycatSL-ViT's training: teacher-labelled images of a like domain, then the true set (2105.09121, 1806.05476).

    The final exit of the (trained) backbone labels the images, once; its answers are kept in the run's folder. Heads
    learn from them for a part of the epochs and from the true labels after; the backbone does not change. *hard* labels
    are the teacher's class, *soft* ones its probabilities, *both* the mean of the two. That the paper's labels are hard
    could not be read in it; the share of the epochs is our choice.

    Args:
        unlabelled: images: a source as for ``offramp.data.open_splits``, whose training split is used without its
            labels, or what ``offramp.data.as_samples`` takes. The run's own images, without their labels, if not given.
        labels: ``hard``, ``soft`` or ``both``.
        share: how much of the epochs is for them.
        min_confidence: images for which the teacher's score is lower are left out.

    Raises:
        UsageError: other labels, or a share outside 0 to 1.
    """

    def __init__(
        self,
        unlabelled: str | Data | None = None,
        labels: str = "hard",
        share: float = 0.5,
        min_confidence: float = 0.0,
    ) -> None:
        if labels not in _LABELS:
            raise UsageError(unknown("kind of label", labels, _LABELS))
        if not 0 < share < 1:
            raise UsageError(f"copycat's share of the epochs is {share}; it lies between 0 and 1")
        self.unlabelled, self.labels, self.share, self.min_confidence = unlabelled, labels, share, min_confidence

    def stages(self, model: EarlyExitModel, samples: Samples | Stream, folder: Path) -> Sequence[Stage]:
        """Two. Raises ``UsageError`` where the teacher is too unsure of every image."""
        images = open_splits(self.unlabelled).train if isinstance(self.unlabelled, str) else self.unlabelled
        images = as_samples(samples if images is None else images)
        answers = torch.from_numpy(_answers(model, images, folder / "teacher"))
        sure = model.task.score(model.task.scores[0], answers, None) >= self.min_confidence
        if not sure.any():
            raise UsageError(f"the teacher's score is below {self.min_confidence} for every unlabelled image")
        kept = replace(images.take(sure.nonzero()[:, 0].numpy()), targets=self._targets(model, answers[sure]))
        return [Stage(Frozen(), self.share, kept), Stage(Frozen(), 1 - self.share)]

    def _targets(self, model: EarlyExitModel, answers: torch.Tensor) -> np.ndarray:
        hard = model.task.answer(answers)
        if self.labels == "hard":
            return hard.numpy()
        weight = {"soft": 1.0, "both": 0.5}[self.labels]
        return model.task.taught(hard, answers, weight, temperature=1.0).numpy()


def _answers(model: EarlyExitModel, images: Samples, folder: Path) -> np.ndarray:
    """The final exit's outputs ``(samples, num_outputs)``, from the folder where they are there."""
    file = folder / "outputs.safetensors"
    if not file.exists():
        table = tabulate(model, loader(images, model.input))
        with atomic_folder(folder) as new:
            save_file({"outputs": table.of(-1).numpy().copy()}, new / file.name)
    return load_file(file)["outputs"]
