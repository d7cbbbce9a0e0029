"""Learned gates: small models that say, from what an exit looks like, whether to leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from offramp.errors import UsageError
from offramp.types import Decision, Evidence, State

FEATURES = ("confidence", "entropy", "margin", "power-entropy")
"""What a gate reads (JEI-DNN, 2310.09163); the entropies as scores, so that higher is surer for all of them."""


@dataclass(frozen=True)
class Gates:
    """A logistic gate an exit, on four scores of its output (JEI-DNN, 2310.09163).

    With g_k the gate's probability and P_k = max(0, min(g_k, 1 − Σ_{j<k} g_j)) the share of a sample that leaves here,
    it leaves where P_k / Π_{j<k} (1 − a_j) ≥ ½, a_j being that ratio at earlier exits, within 0 and 1. Gates are fitted
    by ``offramp.calibration.fit_gates``.

    Args:
        weights: for each exit that is asked, one weight a score.
        biases: for each exit that is asked, one number.
        heads: the indices of the exits that are asked; the heads of others never run.
        score: the kind of score that is reported.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: other numbers of weights or biases than exits and scores.
    """

    weights: tuple[tuple[float, ...], ...]
    biases: tuple[float, ...]
    heads: tuple[int, ...]
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not len(self.weights) == len(self.biases) == len(self.heads):
            raise UsageError(f"{len(self.heads)} gates have weights and a bias each")
        if any(len(w) != len(FEATURES) for w in self.weights):
            raise UsageError(f"a gate has {len(FEATURES)} weights, for {', '.join(FEATURES)}")

    def init(self, n: int) -> State:
        """The sum of the gates so far, and the product of 1 − a_j."""
        return torch.zeros(n), torch.ones(n)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Leave where the gate's share of what is left is at least a half."""
        spent, left = state
        k = self.heads.index(evidence.exit)
        x = torch.stack([evidence.task.score(kind, evidence.output, evidence.previous) for kind in FEATURES], 1)
        gate = (x @ x.new_tensor(self.weights[k]) + self.biases[k]).sigmoid()
        share = torch.minimum(gate, 1 - spent).clamp(min=0)
        ratio = (share / left.clamp(min=1e-9)).clamp(0, 1)
        return Decision(ratio >= 0.5, (spent + gate, left * (1 - ratio)))


@dataclass(frozen=True)
class Scheduler:
    """EENet's learned scores with a threshold an exit (2301.07099).

    The score of exit k is q_k = w · [probabilities, largest probability, 1 − normalised entropy, q_1 … q_{k−1}] + b,
    clamped to 0…1: a prediction of being right. It is fitted together with the assignment of samples to exits under a
    budget by ``offramp.calibration.fit_scheduler``, which also sets the thresholds to the exits' quotas.

    Args:
        thresholds: one for each exit that is asked; None where nobody leaves.
        weights: for each exit that is asked, one weight a feature: outputs + 2 + exits before.
        biases: for each exit that is asked, one number.
        heads: the indices of the exits that are asked; the heads of others never run.
        score: the kind of score that is reported.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: other numbers of thresholds, weights or biases than exits.
    """

    thresholds: tuple[float | None, ...]
    weights: tuple[tuple[float, ...], ...]
    biases: tuple[float, ...]
    heads: tuple[int, ...]
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not len(self.thresholds) == len(self.weights) == len(self.biases) == len(self.heads):
            raise UsageError(f"{len(self.heads)} exits have a threshold, weights and a bias each")

    def init(self, n: int) -> State:
        """The scores so far, ``(n, exits so far)``."""
        return (torch.empty(n, 0),)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Leave where the learned score reaches the exit's threshold."""
        k = self.heads.index(evidence.exit)
        x = torch.cat([features(evidence.task, evidence.output), state[0]], 1)
        score = (x @ x.new_tensor(self.weights[k]) + self.biases[k]).clamp(0, 1)
        threshold = self.thresholds[k]
        leave = torch.zeros_like(score, dtype=torch.bool) if threshold is None else score >= threshold
        return Decision(leave, (torch.cat([state[0], score[:, None]], 1),))


def features(task: Any, output: torch.Tensor) -> torch.Tensor:
    """What EENet's score reads of an output ``(n, num_outputs)``, ``(n, num_outputs + 2)``."""
    probabilities = task.ensemble(output[None], output.new_ones(1), output.new_zeros(())).exp()
    scores = [task.score(kind, output, None)[:, None] for kind in ("confidence", "entropy")]
    return torch.cat([probabilities, *scores], 1)
