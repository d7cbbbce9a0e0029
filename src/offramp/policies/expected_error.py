"""For numbers: leave when the error that a small model expects here is small enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.search import Seen
from offramp.tasks import Task
from offramp.types import Decision, Evidence, ExitTable, State

_LARGEST = 30.0
"""Of a logarithm: errors beyond e³⁰ are all the same, and so are those below e⁻³⁰."""


@dataclass(frozen=True)
class ExpectedError:
    """Leave where the expected absolute error is at most ``limit`` (our own rule).

    At each exit the error is expected to be exp(b + s · log(1 + |y|) + c · log(1 + |y − y before|)), with y what the
    exit says: large numbers are less sure, and so are those that still move. Unlike ``change`` it speaks at the first
    exit of a path too, where nothing has moved yet. Learned by ``fit_errors``.

    Args:
        limit: the largest error at which a sample leaves, in the unit of the answers.
        heads: the indices of the exits that are asked; the heads of others never run.
        weights: for each exit that is asked b, s and c.
        score: the kind of score that is reported.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: a limit below 0, other numbers of weights than exits, or weights that are not finite.
    """

    limit: float
    heads: tuple[int, ...]
    weights: tuple[tuple[float, float, float], ...]
    score: str = "change"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"limit": torch.float32}
    reads_score: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.limit < math.inf:
            raise UsageError(f"the limit is {self.limit}; it is an error of 0 or more")
        if len(self.weights) != len(self.heads) or any(len(w) != 3 for w in self.weights):
            raise UsageError(f"{len(self.heads)} exits have three weights each, not {self.weights}")
        if not all(math.isfinite(number) for weights in self.weights for number in weights):
            raise UsageError("the weights of expected errors are finite numbers")

    def init(self, n: int) -> State:
        """Nothing is remembered."""
        return ()

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Leave where the expected error is within the limit."""
        weights = self.weights[self.heads.index(evidence.exit)]
        expected = _expected(weights, *looks(evidence.output, evidence.previous))
        return Decision(expected <= self.limit, state)

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[ExpectedError]:
        """All exits, any two of them, or one: weights that are learned, limits from what they expect of the other half.

        One limit for all exits says where an error is small, not where going on would make it smaller: an early exit
        that is rarely right takes the easy samples from a later one that would be.
        """
        asked = dict.fromkeys((seen.heads, *combinations(seen.heads, 2), *combinations(seen.heads, 1)))
        for heads in asked:
            start = fit_errors(seen.fitted, heads, seen.task)
            found = [
                _expected(weights, *seen_at)
                for weights, seen_at in zip(start.weights, looks_at(seen.chosen, heads), strict=True)
            ]
            for limit in np.unique(np.quantile(torch.cat(found).double().numpy(), np.linspace(0, 1, 51))):
                yield replace(start, limit=float(limit), score=seen.score)


def looks(output: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
    """What is read of a number ``(n, 1)``: the logarithms of its size and of its change, ``(n,)`` each."""
    own = output[:, 0].float()
    moved = torch.zeros_like(own) if previous is None else own - previous[:, 0].float()
    return own.abs().log1p(), moved.abs().log1p()


def looks_at(table: ExitTable, heads: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """``looks`` at each of these exits of a table; the first on a path has nothing to compare with, as in a run."""
    paths = table.chain.paths
    return [
        looks(table.of(head), None if before is None or paths[before] != paths[head] else table.of(before))
        for head, before in zip(heads, (None, *heads), strict=False)
    ]


def _expected(weights: tuple[float, float, float], own: Tensor, moved: Tensor) -> Tensor:
    constant, size, change = weights
    return (constant + size * own + change * moved).clamp(max=_LARGEST).exp()


def fit_errors(table: ExitTable, heads: Sequence[int], task: Task) -> ExpectedError:
    """Weights by Poisson regression of the absolute error (scikit-learn's), whose mean it models; the limit is 0.

    Args:
        table: outputs on held-out data.
        heads: the indices of the exits that are asked.
        task: what an output means.

    Raises:
        UsageError: a task of classes.
    """
    from sklearn.linear_model import PoissonRegressor  # slow to import, and fitting alone needs it

    if task.classes:
        raise UsageError(f"expected errors are those of numbers, and {task.name} answers classes")
    weights = []
    for head, seen in zip(heads, looks_at(table, heads), strict=True):
        x = torch.stack(seen, 1).double().numpy()
        error = (task.answer(table.of(head)) - table.targets).abs().double().numpy()
        if not error.any():  # the mean that is modelled has no logarithm
            weights.append((-_LARGEST, 0.0, 0.0))
            continue
        fitted = PoissonRegressor(alpha=1e-3, max_iter=500).fit(x, error)
        weights.append((float(fitted.intercept_), *fitted.coef_.tolist()))
    return ExpectedError(0.0, tuple(heads), tuple(weights), task.scores[0])
