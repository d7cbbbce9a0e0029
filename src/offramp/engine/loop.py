"""The one compaction loop: samples that leave are taken out of the batch, so what is left costs what is left."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from offramp.policies import Policy, score_of
from offramp.tasks import Task
from offramp.types import Evidence, Trace


class Stages(Protocol):
    """A model in pieces. It knows neither policy nor task; a state ``h`` is opaque to everybody else."""

    num_exits: int
    """The number of early exits."""

    def stem(self, x: Tensor) -> Any:
        """Images to the state before the first block."""

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k`` (the blocks that lead to exit ``k``) from the state before it."""

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``, ``(n, num_outputs)``."""

    def final(self, h: Any) -> Tensor:
        """The output of the final exit, ``(n, num_outputs)``."""

    def take(self, h: Any, keep: Tensor) -> Any:
        """The state of the samples at the indices ``keep`` only."""


def run_policy(stages: Stages, x: Tensor, policy: Policy, task: Task) -> Trace:
    """Run a batch; every sample leaves where the policy lets it go.

    Only the heads that the policy needs run. At each of them the outputs of all samples still inside are written to
    their rows, and later exits overwrite them: the last write is the answer.

    Args:
        stages: what computes.
        x: images, ``(B, C, H, W)``.
        policy: who leaves where.
        task: what an output means.
    """
    rows = torch.arange(len(x), device=x.device)
    exits, scores = torch.zeros_like(rows), torch.zeros(len(x), device=x.device)
    state = tuple(s.to(x.device) for s in policy.init(len(x)))
    outputs = previous = None
    h = stages.stem(x)
    for k in range(stages.num_exits + 1):
        final = k == stages.num_exits
        h = stages.step(k, h)
        if not final and k not in policy.heads:
            continue
        output = stages.final(h) if final else stages.head(k, h)
        score = score_of(policy, task, k, output, previous)
        if outputs is None:
            outputs = output.new_empty(len(x), output.shape[1])
        exits[rows], scores[rows] = k, score
        if final:
            outputs[rows] = output
            break
        decision = policy.step(state, Evidence(k, output, score, task, previous))
        outputs[rows], state = output if decision.output is None else decision.output, decision.state
        keep = (~decision.leave).nonzero()[:, 0]
        if len(keep) == 0:
            break
        previous = output
        if len(keep) < len(rows):
            rows, previous, h = rows[keep], output[keep], stages.take(h, keep)
            state = tuple(s[keep] for s in state)
    assert outputs is not None
    return Trace(outputs, exits, scores)
