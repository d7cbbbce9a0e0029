"""Run a model with a policy."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp._batches import Inputs, count, parts, to
from offramp.engine.runtime import Runtime, open_runtime
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed
from offramp.types import Trace


def run(model: EarlyExitModel, x: Inputs, policy: Policy, runtime: str | Runtime = "torch") -> Trace:
    """A batch through the model; samples that leave early are taken out of the batch and cost nothing more.

    The model computes in evaluation mode, whatever mode it is in, and in the type of its weights.

    Args:
        model: the model.
        x: a batch as the model's input prepares it, such as images ``(B, C, H, W)``; B may be 0. It is moved to the
            model's device.
        policy: who leaves where.
        runtime: a name from ``offramp list runtimes``, or a runtime. Some take seconds to open a model: to run many
            batches, open it once with ``open_runtime(name).dynamic(model, policy)``.

    Returns:
        output float32 ``(B, num_outputs)``, exit ``(B,)``, score ``(B,)``, and the path of the exit ``(B,)``.

    Raises:
        DataError: samples of another shape than the model takes, or with values that are not finite.
        UsageError: a policy for more exits than the model has.
    """
    check_policy(model, policy)
    x = prepared(model, x)
    return nothing(model) if count(x) == 0 else open_runtime(runtime).dynamic(model, policy)(x)


def check_policy(model: EarlyExitModel, policy: Policy) -> None:
    """Raise ``UsageError`` for a policy that needs more exits than the model has."""
    if policy.heads and max(policy.heads) >= len(model.exits):
        raise UsageError(f"the policy needs exits {list(policy.heads)}, the model has {len(model.exits)} early exits")
    if isinstance(policy, Routed) and len(policy.bias) != model.chain.num_paths:
        raise UsageError(f"the policy has a bias for {len(policy.bias)} paths, the model has {model.chain.num_paths}")


def prepared(model: EarlyExitModel, x: Inputs) -> Inputs:
    """A batch on the model's device. Raises ``DataError`` for another shape, or values that are not finite."""
    x = to(x, next(model.parameters()).device)
    model.input.check(x)
    if not all(map(_is_finite, parts(x))):
        raise DataError(f"the {model.input.noun} hold values that are not finite (NaN or infinity)")
    return x


def _is_finite(part: Tensor) -> bool:
    """By its smallest and its largest value, which are NaN where any is: far quicker than looking at each."""
    return not part.numel() or bool(torch.isfinite(torch.stack([part.min(), part.max()])).all())


def nothing(model: EarlyExitModel) -> Trace:
    """What comes of no samples; some of timm's models cannot reshape a batch of none."""
    empty = next(model.parameters()).new_empty(0, dtype=torch.float32)
    return Trace(empty.new_empty(0, model.num_outputs), empty.long(), empty)
