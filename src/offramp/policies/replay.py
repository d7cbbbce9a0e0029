"""Replay: what a policy would have done, from the exit table alone."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.policies._policy import Policy, score_of
from offramp.policies.routed import entries
from offramp.tasks import Task, get_task
from offramp.types import Evidence, ExitTable, State, Trace


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
    said = torch.zeros(n, table.chain.num_paths) if table.route is None else table.route
    entry = entries(policy, lambda: said)
    where = torch.zeros(n, dtype=torch.long) if entry is None else entry
    onto = torch.tensor(table.chain.entered(policy.heads))[where]
    state = policy.init(n)
    exits = torch.full((n,), final, dtype=torch.long)
    output = table.of(final, where).clone()
    score = torch.empty(n)
    inside = torch.ones(n, dtype=torch.bool)
    previous = None
    path = 0
    for k in (*policy.heads, final):
        if table.chain.paths[k] != path:  # begins anew: nobody has an answer from this path
            path, previous = table.chain.paths[k], None
        here = table.of(k, where)
        inside_here = inside & (onto <= path)
        sure = score_of(policy, meaning, k, here, previous)
        answer, leave = here, inside_here
        if k < final:
            decision = policy.step(state, Evidence(k, here, sure, meaning, previous))
            leave = decision.leave & inside_here
            state = decision.state if entry is None else _kept(inside_here, decision.state, state)
            answer = here if decision.output is None else decision.output
        exits[leave], output[leave], score[leave] = k, answer[leave], sure[leave]
        inside = inside & ~leave
        previous = here
    return Trace(output, exits, score, torch.tensor(table.chain.paths)[exits], where)


def _kept(rows: Tensor, new: State, old: State) -> State:
    """The new state of some rows ``(n,)``, the old one of the others, who have not entered."""
    return tuple(torch.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))
