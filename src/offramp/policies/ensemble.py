"""Ensembles: every exit answers together with those before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.policies._answering import searched
from offramp.search import Seen
from offramp.tasks import Task, get_task
from offramp.types import Decision, Evidence, ExitTable, State


@dataclass(frozen=True)
class Ensemble:
    """Leave when the ensemble of the exits so far is sure (Zero Time Waste, 2106.05409).

    At the k-th exit that is asked, probabilities are combined as softmax(Σ_j weights[k][j] · log p_j + bias[k]), a
    weighted geometric mean; for numbers it is the weighted mean. A score that compares (``change``) compares with what
    the exits before said together. It costs next to nothing: the heads have run anyway.
    As in the paper the final exit answers alone. Weights are fitted by ``fit_ensemble``.

    Args:
        thresholds: one for each exit that is asked: of the ensemble's score, between 0 and 1.
        heads: the indices of the exits that are asked; the heads of others never run.
        weights: for each exit that is asked, one weight for itself and each before it; a plain mean if empty.
        biases: for each exit that is asked, one number an output; none if empty.
        score: the kind of score.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: a threshold outside [0, 1]; another number of thresholds, weights or biases than exits.
    """

    thresholds: tuple[float, ...]
    heads: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...] = ()
    biases: tuple[tuple[float, ...], ...] = ()
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"thresholds": torch.float32}
    reads_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for values in (self.thresholds, self.weights or self.thresholds, self.biases or self.thresholds):
            if len(values) != len(self.heads):
                raise UsageError(f"an ensemble of {len(self.heads)} exits with {len(values)} values, not one per exit")
        if any(not 0 <= t <= 1 for t in self.thresholds):
            raise UsageError(f"thresholds lie between 0 and 1; these are {list(self.thresholds)}")
        if any(len(w) != k + 1 for k, w in enumerate(self.weights)):
            raise UsageError("an exit of an ensemble has a weight for itself and for each exit before it")

    def init(self, n: int) -> State:
        """The outputs so far, ``(n, exits so far, num_outputs)``."""
        return (torch.empty(n, 0, 0),)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Combine, and leave where the combination is sure."""
        output = evidence.output.float()[:, None]
        outputs = output if state[0].shape[1] == 0 else torch.cat([state[0], output], 1)
        k = outputs.shape[1] - 1
        together = self._together(outputs, evidence.task)
        before = self._together(outputs[:, :k], evidence.task) if k else None
        sure = evidence.task.score(self.score, together, before) >= self.thresholds[k]
        return Decision(sure, (outputs,), together)

    def _together(self, outputs: Tensor, task: Task) -> Tensor:
        """What exits ``(n, exits, num_outputs)`` say as one."""
        k = outputs.shape[1] - 1
        weights = outputs.new_tensor(self.weights[k]) if self.weights else outputs.new_full((k + 1,), 1 / (k + 1))
        bias = outputs.new_tensor(self.biases[k]) if self.biases else outputs.new_zeros(outputs.shape[2])
        return task.ensemble(outputs.transpose(0, 1), weights, bias)

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Ensemble]:
        """Weights that are learned, thresholds of the search's frontier."""
        start = replace(fit_ensemble(seen.fitted, seen.heads, seen.task), score=seen.score)
        for thresholds in searched(start, seen):
            yield replace(start, thresholds=thresholds)


def fit_ensemble(table: ExitTable, heads: Sequence[int], task: str | Task | None = None, steps: int = 100) -> Ensemble:
    """Weights and biases of an ensemble by the loss of its answers (Zero Time Waste, 2106.05409).

    As in the paper weights are exponentials, so that none is negative; they begin as a plain mean. The thresholds are
    1: choose them afterwards.

    Args:
        table: outputs on held-out data.
        heads: the indices of the exits that are asked.
        task: what an output means.
        steps: of the optimiser.
    """
    meaning = get_task(table.task if task is None else task)
    outputs_of = torch.stack([table.of(k) for k in heads])
    weights: list[tuple[float, ...]] = []
    biases: list[tuple[float, ...]] = []
    for k in range(len(heads)):
        outputs = outputs_of[: k + 1]
        logs = torch.full((k + 1,), -math.log(k + 1), requires_grad=True)
        bias = torch.zeros(outputs.shape[2], requires_grad=True)
        optimizer = torch.optim.Adam([logs, bias], lr=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            meaning.loss(meaning.ensemble(outputs, logs.exp(), bias), table.targets).backward()
            optimizer.step()
        weights.append(tuple(logs.detach().exp().tolist()))
        biases.append(tuple(bias.detach().tolist()))
    return Ensemble((1.0,) * len(heads), tuple(heads), tuple(weights), tuple(biases), meaning.scores[0])
