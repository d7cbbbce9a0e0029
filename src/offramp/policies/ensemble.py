"""Ensembles: every exit answers together with those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from offramp.errors import UsageError
from offramp.types import Decision, Evidence, State


@dataclass(frozen=True)
class Ensemble:
    """Leave when the ensemble of the exits so far is sure (Zero Time Waste, 2106.05409).

    At the k-th exit that is asked, probabilities are combined as softmax(Σ_j weights[k][j] · log p_j + bias[k]), a
    weighted geometric mean; for numbers it is the weighted mean. It costs next to nothing: the heads have run anyway.
    As in the paper the final exit answers alone. Weights are fitted by ``offramp.calibration.fit_ensemble``.

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

    def __post_init__(self) -> None:
        for values in (self.thresholds, self.weights or self.thresholds, self.biases or self.thresholds):
            if len(values) != len(self.heads):
                raise UsageError(f"an ensemble of {len(self.heads)} exits with {len(values)} values, not one an exit")
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
        weights = output.new_tensor(self.weights[k]) if self.weights else output.new_full((k + 1,), 1 / (k + 1))
        bias = output.new_tensor(self.biases[k]) if self.biases else output.new_zeros(output.shape[2])
        together = evidence.task.ensemble(outputs.transpose(0, 1), weights, bias)
        sure = evidence.task.score(self.score, together, None) >= self.thresholds[k]
        return Decision(sure, (outputs,), together)
