"""Cascades: every exit also reads what the one before it said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from offramp.errors import UsageError
from offramp.policies._answering import searched
from offramp.search import Seen
from offramp.tasks import Task, get_task
from offramp.types import Decision, Evidence, ExitTable, State


@dataclass(frozen=True)
class Cascade:
    """Leave when an exit that has heard the exits before it is sure (Zero Time Waste, 2106.05409).

    Outputs are z'_k = z_k + links[k] · LayerNorm(z'_{k−1}), and the first exit's is its own. That is the paper's
    cascade connection for a linear head. The paper trains it together with the head; here heads are left as they are
    and links are learned from a table (``fit_cascade``), so that any head can have one. A single
    number is not normalised. The final exit answers alone.

    Args:
        thresholds: one for each exit that is asked: of the score of z', between 0 and 1.
        heads: the indices of the exits that are asked; the heads of others never run.
        links: for each exit that is asked but the first, a matrix ``(num_outputs, num_outputs)``.
        score: the kind of score.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: a threshold outside [0, 1]; another number of thresholds or links than exits.
    """

    thresholds: tuple[float, ...]
    heads: tuple[int, ...]
    links: tuple[tuple[tuple[float, ...], ...], ...]
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"thresholds": torch.float32}
    reads_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.heads) or len(self.links) != max(len(self.heads) - 1, 0):
            raise UsageError(
                f"a cascade of {len(self.heads)} exits has as many thresholds and one link fewer, "
                f"not {len(self.thresholds)} and {len(self.links)}"
            )
        if any(not 0 <= t <= 1 for t in self.thresholds):
            raise UsageError(f"thresholds lie between 0 and 1; these are {list(self.thresholds)}")

    def init(self, n: int) -> State:
        """The output so far, ``(n, num_outputs)``."""
        return (torch.empty(n, 0),)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Add what the exit before says, and leave where the sum is sure."""
        place = self.heads.index(evidence.exit)
        previous = state[0] if place else None
        together = evidence.output.float()
        if previous is not None:
            together = together + heard(previous) @ together.new_tensor(self.links[place - 1]).T
        sure = evidence.task.score(self.score, together, previous) >= self.thresholds[place]
        return Decision(sure, (together,), together)

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Cascade]:
        """Links that are learned, thresholds of the search's frontier."""
        start = replace(fit_cascade(seen.fitted, seen.heads, seen.task), score=seen.score)
        for thresholds in searched(start, seen):
            yield replace(start, thresholds=thresholds)


def heard(output: Tensor) -> Tensor:
    """What the next exit reads of an output ``(n, num_outputs)``: its layer norm; a single number as it is."""
    return functional.layer_norm(output, output.shape[1:]) if output.shape[1] > 1 else output


def fit_cascade(table: ExitTable, heads: Sequence[int], task: str | Task | None = None, steps: int = 100) -> Cascade:
    """Links of a cascade, one exit after the other, by the loss of its answers (Zero Time Waste, 2106.05409).

    Each link begins at 0, where an exit answers for itself, and is held there by a small penalty on its squares: it has
    num_outputs² numbers, which a small table could be learned by heart with. The thresholds are 1: choose them
    afterwards.

    Args:
        table: outputs on held-out data.
        heads: the indices of the exits that are asked.
        task: what an output means.
        steps: of the optimiser.
    """
    meaning = get_task(table.task if task is None else task)
    links = []
    together = table.of(heads[0])
    for head in heads[1:]:
        own, before = table.of(head), heard(together)
        link = torch.zeros(own.shape[1], own.shape[1], requires_grad=True)
        optimizer = torch.optim.Adam([link], lr=0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            penalty = 1e-3 * link.square().sum()
            (meaning.loss(own + before @ link.T, table.targets) + penalty).backward()
            optimizer.step()
        together = own + before @ link.detach().T
        links.append(tuple(tuple(row) for row in link.detach().tolist()))
    return Cascade((1.0,) * len(heads), tuple(heads), tuple(links), meaning.scores[0])
