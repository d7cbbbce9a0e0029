"""Learned gates: small models that say, from what an exit looks like, whether to leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from offramp.errors import UsageError
from offramp.policies._costs import cost_to_exit
from offramp.search import Columns, Seen
from offramp.tasks import Task, get_task
from offramp.types import Decision, Evidence, ExitTable, State

FEATURES = ("confidence", "entropy", "margin", "power-entropy")
"""What a gate reads (JEI-DNN, 2310.09163); the entropies as scores, so that higher is surer for all of them."""


@dataclass(frozen=True)
class Gates:
    """One logistic gate per exit, on four scores of its output (JEI-DNN, 2310.09163).

    With g_k the gate's probability and P_k = max(0, min(g_k, 1 − Σ_{j<k} g_j)) the share of a sample that leaves here,
    it leaves where P_k / Π_{j<k} (1 − a_j) ≥ ½, a_j being that ratio at earlier exits, within 0 and 1. Gates are fitted
    by ``fit_gates``.

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

    numbers: ClassVar[Mapping[str, torch.dtype]] = {}
    reads_score: ClassVar[bool] = False

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

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Gates]:
        """Gates for prices of cost from next to nothing to ten."""
        columns = seen.columns(seen.fitted)
        for price in np.geomspace(0.001, 10, 25):
            yield replace(fit_gates(seen.fitted, columns, seen.heads, float(price), seen.task), score=seen.score)


def fit_gates(
    table: ExitTable, columns: Columns, heads: Sequence[int], price: float, task: str | Task | None = None
) -> Gates:
    """Logistic gates (JEI-DNN, 2310.09163), heads frozen.

    A sample's best exit is where its cross-entropy + ``price`` · cost / static cost is least; a gate learns whether its
    exit is that one or lies behind it. The paper trains gates and heads in turn, and weights samples that may leave;
    heads are left as they are here, and all samples weigh alike.

    Args:
        table: outputs on held-out data.
        columns: what calibration reads of it.
        heads: the indices of the exits that are asked.
        price: of cost; the higher, the earlier samples leave.
        task: what an output means.

    Raises:
        UsageError: a task without the scores that a gate reads.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and fitting alone needs it

    meaning = get_task(table.task if task is None else task)
    rows = [*heads, len(table.outputs) - 1]
    previous = [None, *map(table.of, heads)]
    looks = [
        torch.stack([meaning.score(kind, table.of(head), before) for kind in FEATURES], 1).double().numpy()
        for head, before in zip(heads, previous, strict=False)
    ]
    spent = torch.tensor(cost_to_exit(columns, heads), dtype=torch.float64)
    wrong = torch.stack([meaning.losses(table.of(row), table.targets) for row in rows])
    best = (wrong + price * (spent / columns.static)[:, None]).argmin(0)
    weights: list[tuple[float, ...]] = []
    biases: list[float] = []
    for k, x in enumerate(looks):
        label = (best <= k).numpy()
        if label.all() or not label.any():
            weights.append((0.0,) * len(FEATURES))
            biases.append(20.0 if label.all() else -20.0)
        else:
            gate = LogisticRegression(C=100.0, max_iter=500).fit(x, label)
            weights.append(tuple(gate.coef_[0].tolist()))
            biases.append(float(gate.intercept_[0]))
    return Gates(tuple(weights), tuple(biases), tuple(heads), meaning.scores[0])
