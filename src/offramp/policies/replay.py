"""Replay: what a policy would have done, from the exit table alone."""

from __future__ import annotations

import torch

from offramp.errors import UsageError
from offramp.policies._policy import Policy, score_of
from offramp.tasks import Task, get_task
from offramp.types import Evidence, ExitTable, Trace


def replay(policy: Policy, table: ExitTable, task: str | Task | None = None) -> Trace:
    """Apply a policy to a table; the same exits and answers as running it live, without a model.

    Unlike the engine it takes no sample out of the batch: every exit sees every sample, and the first exit that lets a
    sample go is the one that counts.

    Args:
        policy: the policy; its heads must be exits of the table.
        table: every exit's output for every sample.
        task: what an output means, where it is none that the table can name.

    Raises:
        UsageError: the policy needs an exit that the table does not have.
    """
    meaning = get_task(table.task if task is None else task)
    final = len(table.outputs) - 1
    if any(k >= final for k in policy.heads):
        raise UsageError(f"the policy needs exits {list(policy.heads)}, the table has {final} early exits")
    n = len(table)
    state = policy.init(n)
    exits = torch.full((n,), final, dtype=torch.long)
    output = table.of(final).clone()
    score = torch.empty(n)
    inside = torch.ones(n, dtype=torch.bool)
    previous = None
    for k in (*policy.heads, final):
        here = table.of(k)
        sure = score_of(policy, meaning, k, here, previous)
        answer, leave = here, inside
        if k < final:
            decision = policy.step(state, Evidence(k, here, sure, meaning, previous))
            leave, state = decision.leave & inside, decision.state
            answer = here if decision.output is None else decision.output
        exits[leave], output[leave], score[leave] = k, answer[leave], sure[leave]
        inside = inside & ~leave
        previous = here
    return Trace(output, exits, score)
