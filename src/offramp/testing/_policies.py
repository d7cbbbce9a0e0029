"""What every policy keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from offramp._batches import Inputs, take
from offramp.engine import run, tabulate
from offramp.model import EarlyExitModel
from offramp.policies import Policy, policy_from_json, policy_to_json, replay
from offramp.testing._small import tiny_model
from offramp.types import ExitTable, Trace

SAMPLES = 2000
MARGIN = 1e-5
"""Outputs are this sure, another batch size sums in another order: a sample that leaves elsewhere when its outputs move
so much may fall on either side."""


def check_policy(
    policy: Policy | Callable[[Tensor], Policy],
    model: EarlyExitModel | None = None,
    table: ExitTable | None = None,
) -> None:
    """Check that a policy does the same live and replayed, whatever the order and the company of the samples.

    Only the heads that it names run, an empty batch is answered, its state has a row for each sample, and it comes back
    from JSON as it was.

    Args:
        policy: a policy for a model of three early exits and five classes, some of whose samples leave early; or a
            function from row numbers ``(n,)`` to the policy for these rows.
        model: what to try it on, if not that.
        table: its outputs for 2,000 samples of noise (``model.input.example`` with seed 1), where they are known.

    Raises:
        AssertionError: the sentence says what is broken.
    """
    make: Callable[[Tensor], Policy] = policy if not hasattr(policy, "step") else lambda rows: policy  # type: ignore[assignment, return-value]
    model = tiny_model(seed=2) if model is None else model
    x = model.input.example(SAMPLES, torch.Generator().manual_seed(1))
    if table is None:
        table = tabulate(model, [(take(x, rows), torch.zeros(len(rows))) for rows in torch.arange(SAMPLES).split(256)])
    whole = make(torch.arange(SAMPLES))
    assert policy_from_json(policy_to_json(whole)) == whole, "it does not come back from JSON"
    assert all(len(s) == 7 for s in make(torch.arange(7)).init(7)), "its state has not a row for each sample"
    expected, near = replay(whole, table, model.task), near_threshold(whole, table, model)
    final = len(model.exits)
    assert {*expected.exit.tolist()} <= {*whole.heads, final}, "a sample leaves at an exit that it does not name"
    assert_same(run(model, x, whole), expected, near, "live and replayed")
    order, parts = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0)), []
    for rows in order.split(177):
        parts.append(run(model, take(x, rows), make(rows)))
    assert_same(Trace.cat(parts).take(order.argsort()), expected, near, "in another order, in other company")
    for i in range(5):
        row = torch.tensor([i])
        assert_same(run(model, take(x, row), make(row)), expected.take(row), near[row] & False, "alone")
    empty = run(model, take(x, torch.arange(0)), make(torch.arange(0)))
    assert len(empty.exit) == len(empty.output) == len(empty.score) == 0, "an empty batch has answers"
    some = torch.arange(64)
    _check_heads(model, take(x, some), make(some))


def near_threshold(policy: Policy, table: ExitTable, model: EarlyExitModel) -> Tensor:
    """The samples that leave elsewhere when the outputs move by the margin, ``(samples,)``."""
    expected = replay(policy, table, model.task).exit
    near = torch.zeros(len(table), dtype=torch.bool)
    for seed in range(8):
        noise = torch.randn(table.outputs.shape, generator=torch.Generator().manual_seed(seed)).sign() * MARGIN
        near |= replay(policy, replace(table, outputs=table.outputs + noise), model.task).exit != expected
    return near


def assert_same(a: Trace, b: Trace, near: Tensor, what: str) -> None:
    """Raise ``AssertionError`` unless two traces are one, but for samples near a threshold."""
    assert near.float().mean() < 0.01, "more than one sample in a hundred stands on a threshold"
    assert torch.equal(a.exit[~near], b.exit[~near]), f"{what}: samples leave elsewhere"
    assert torch.equal(a.path[~near], b.path[~near]), f"{what}: on other paths"
    assert torch.equal(a.entry[~near], b.entry[~near]), f"{what}: they enter elsewhere"
    assert torch.allclose(a.output[~near], b.output[~near], atol=1e-4), f"{what}: samples are answered otherwise"
    assert torch.allclose(a.score[~near], b.score[~near], atol=1e-4), f"{what}: scores differ"


def _check_heads(model: EarlyExitModel, x: Inputs, policy: Policy) -> None:
    calls: list[int] = []
    encoded: list[Any] = []
    usual, encode = model.head, model.hear

    def head(k: int, h: Any) -> Tensor:
        calls.append(k)
        return usual(k, h)

    def hear(h: Any) -> Any:
        encoded.append(h)
        return encode(h)

    model.head, model.hear = head, hear  # type: ignore[method-assign]
    try:
        last = int(run(model, x, policy).exit.max())
    finally:
        del model.head, model.hear
    heard = model.chain.heard(policy.heads)
    wanted = int(heard is not None and heard <= last)
    assert len(encoded) == wanted, f"another modality was encoded {len(encoded)} times, and not {wanted}"
    asked = {*calls} - {len(model.exits)}
    assert asked <= {*policy.heads}, f"the heads {sorted(asked)} ran, and it names {list(policy.heads)}"
    reached = {k for k in policy.heads if k <= last}
    assert model.chain.num_paths > 1 or asked == reached, f"the heads {sorted(asked)} ran, and not {sorted(reached)}"
