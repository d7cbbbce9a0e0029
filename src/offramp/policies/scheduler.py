"""EENet's scheduler: a learned score per exit, and thresholds by quota."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.errors import UsageError
from offramp.policies._costs import cost_to_exit, only
from offramp.search import Columns, Seen, exit_distribution, quota_thresholds
from offramp.tasks import Task, get_task
from offramp.types import Decision, Evidence, ExitTable, State


@dataclass(frozen=True)
class Scheduler:
    """EENet's learned scores with one threshold per exit (2301.07099).

    The score of exit k is q_k = w · [probabilities, largest probability, 1 − normalised entropy, q_1 … q_{k−1}] + b,
    clamped to 0…1: a prediction of being right. It is fitted together with the assignment of samples to exits under a
    budget by ``fit_scheduler``, which also sets the thresholds to the exits' quotas.

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

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"thresholds": torch.float32}
    reads_score: ClassVar[bool] = False

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

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Scheduler]:
        """Scores and thresholds for budgets from the first exit's cost to the whole model's."""
        columns, to_exit = seen.columns(seen.fitted), seen.costs.to_exit(seen.heads, seen.unit)
        budgets = np.linspace(to_exit[0] * 1.02, columns.static, 14)
        for budget in budgets[(to_exit[0] <= budgets) & (budgets <= to_exit[-1])]:
            yield replace(fit_scheduler(seen.fitted, columns, seen.heads, float(budget), seen.task), score=seen.score)


def features(task: Task, output: Tensor) -> Tensor:
    """What EENet's score reads of an output ``(n, num_outputs)``, ``(n, num_outputs + 2)``."""
    probabilities = task.probabilities(output)
    scores = [task.score(kind, output, None)[:, None] for kind in ("confidence", "entropy")]
    return torch.cat([probabilities, *scores], 1)


def fit_scheduler(
    table: ExitTable,
    columns: Columns,
    heads: Sequence[int],
    budget: float,
    task: str | Task | None = None,
    steps: int = 200,
) -> Scheduler:
    """EENet's scores and thresholds for a mean cost (2301.07099), trained on a table.

    Each exit's score predicts being right (binary cross-entropy, weighted with the assignment); a second linear map
    assigns samples to exits, pulled towards the scores and towards the budget. Thresholds are set so that each exit
    gets the share that was assigned to it, rescaled to the budget by MSDNet's rule where they miss it. Weights of the
    three parts of the loss (1, 0.1, 10) and the sharpness of the target (2) are our choice.

    Args:
        table: outputs on held-out data.
        columns: what calibration reads of it.
        heads: the indices of the exits that are asked.
        budget: mean cost of a sample, in the unit of the columns.
        task: what an output means.
        steps: of the optimiser.
    """
    meaning = get_task(table.task if task is None else task)
    learner = _Learner([features(meaning, table.of(head)) for head in heads])
    right = columns.quality[list(heads)].float().T
    spent = torch.tensor(cost_to_exit(columns, heads), dtype=torch.float32)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        scores, shares = learner()
        _loss(scores, shares, right, spent, budget).backward()
        optimizer.step()
    with torch.no_grad():
        scores, shares = learner()
    quotas = shares.mean(0)
    if abs(float(quotas @ spent) / budget - 1) > 0.02:
        quotas = torch.tensor(exit_distribution(only(columns, heads), budget))
    return Scheduler(
        quota_thresholds(scores.T.double(), tuple(quotas.tolist())),
        tuple(tuple(weight.tolist()) for weight in learner.weights),
        tuple(float(bias.detach()) for bias in learner.biases),
        tuple(heads),
        meaning.scores[0],
    )


class _Learner(nn.Module):
    """Scores of exits, and the shares in which samples are assigned to them.

    Args:
        seen: what each exit's score reads of the samples, ``(samples, features)``; it also reads the scores before it.
    """

    def __init__(self, seen: Sequence[Tensor]) -> None:
        super().__init__()
        self.seen = seen
        widths = [x.shape[1] for x in seen]
        generator = torch.Generator().manual_seed(0)
        # the largest probability to begin with, which stands before the entropy
        first = [torch.eye(width + k)[width - 2] for k, width in enumerate(widths)]
        drawn = [0.01 * torch.randn(width + k, generator=generator) for k, width in enumerate(widths)]
        self.weights = nn.ParameterList(first)
        self.biases = nn.ParameterList(torch.zeros(()) for _ in seen)
        self.assign = nn.ParameterList(drawn)
        self.rest = nn.Parameter(torch.zeros(()))
        """What is assigned to the final exit."""

    def forward(self) -> tuple[Tensor, Tensor]:
        """Scores ``(samples, exits)`` and shares ``(samples, exits + 1)``."""
        scores: list[Tensor] = []
        assigned: list[Tensor] = []
        for x, weight, bias, assign in zip(self.seen, self.weights, self.biases, self.assign, strict=True):
            read = torch.cat([x, *(score.detach()[:, None] for score in scores)], 1)
            assigned.append(read @ assign)
            scores.append((read @ weight + bias).clamp(0, 1))
        rest = self.rest.expand(len(self.seen[0]))
        return torch.stack(scores, 1), torch.stack([*assigned, rest], 1).softmax(1)


def _loss(scores: Tensor, shares: Tensor, right: Tensor, spent: Tensor, budget: float) -> Tensor:
    """Scores that say what is right where samples leave; shares that follow the scores and keep the budget.

    Args:
        scores: ``(samples, exits)``.
        shares: ``(samples, exits + 1)``.
        right: whether each exit is right, ``(samples, exits)``.
        spent: the cost of leaving at each exit, the final exit last.
        budget: mean cost of a sample.
    """
    weight = shares[:, :-1].detach() * scores.shape[1]
    own = functional.binary_cross_entropy(scores.clamp(1e-4, 1 - 1e-4), right, weight)
    target = torch.cat([scores.detach() ** 2, torch.full((len(scores), 1), 0.5)], 1)
    target = target / target.sum(1, keepdim=True)
    follow = functional.kl_div(shares.clamp_min(1e-9).log(), target, reduction="batchmean")
    missed = (shares.mean(0) @ spent - budget).abs() / budget
    return own + 0.1 * follow + 10 * missed
