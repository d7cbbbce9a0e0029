"""The model and its policy in graphs that torch can export: what lies between two places where samples may leave."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from offramp._batches import flat, of_parts
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed, inner_of, score_of
from offramp.policies.forced import Forced
from offramp.types import Evidence

Tensors = tuple[Tensor, ...]

NEVER = 2.0
"""A threshold that no score reaches: the exit is off."""


def policy_inputs(policy: Policy) -> dict[str, Tensor]:
    """The numbers of a policy that become inputs of the graph, with the policy's own as defaults.

    They have the shape that the policy gives them; a threshold that is None becomes ``NEVER``.
    """
    found = {}
    for name, dtype in policy.numbers.items():
        value = getattr(policy if name == "bias" else inner_of(policy), name)
        plain = [NEVER if v is None else v for v in value] if isinstance(value, tuple) else value
        found[name] = torch.tensor(plain, dtype=dtype)
    return found


def only_numbers_differ(a: Policy, b: Policy) -> bool:
    """Whether two policies are one but for the numbers that are inputs of the graph, and where they come from."""
    if isinstance(a, Routed) and isinstance(b, Routed):
        return len(a.bias) == len(b.bias) and only_numbers_differ(a.inner, b.inner)
    if type(a) is not type(b):
        return False
    free = {*a.numbers, "provenance", "exits", "entries"}
    fixed = [f.name for f in dataclasses.fields(a) if f.name not in free]  # type: ignore[arg-type]
    shapes = [{name: value.shape for name, value in policy_inputs(policy).items()} for policy in (a, b)]
    return shapes[0] == shapes[1] and all(getattr(a, name) == getattr(b, name) for name in fixed)


def holds(own: Policy, policy: Policy, switched: bool) -> bool:
    """Whether a file that was exported with ``own`` can compute ``policy``: only numbers differ.

    Where the file cannot switch heads, the policy asks those of the file, or nobody leaves early.
    """
    return only_numbers_differ(policy, own) and (switched or policy.heads in ((), own.heads))


def state_of(model: EarlyExitModel, h: Tensors, packed: bool) -> Any:
    """A state of a model from its tensors in a row; ``packed`` says whether the backbone's own is a tuple."""
    if model.side is None:
        return h if packed else h[0]
    return (h[:-3] if packed else h[0]), h[-3:]


class Segment(nn.Module):
    """The blocks that lead from one exit of the chain to the next.

    Args:
        model: the model.
        k: the index of the segment.
        packed: whether the backbone's own state is a tuple.
        start: the path that begins here: what comes in is a batch, and behind it what the path takes over, if anything.
    """

    def __init__(self, model: EarlyExitModel, k: int, packed: bool, start: int | None = None) -> None:
        super().__init__()
        self.model, self.k, self.packed, self.start = model, k, packed, start

    def forward(self, h: Tensors) -> Tensors:
        """The state before, or the parts of a batch, to the state after, as a tuple of tensors."""
        if self.start is None:
            state = state_of(self.model, h, self.packed)
        else:
            number = len(self.model.input.shapes)
            state = self.model.enter(self.start, of_parts(h[:number]))
            if len(h) > number:
                state = state + h[number]
        return flat(self.model.step(self.k, state))


class Hear(nn.Module):
    """The encoder of another modality.

    Args:
        model: the model.
    """

    def __init__(self, model: EarlyExitModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, h: Tensors) -> Tensors:
        """The other modality, and whether it is there, to side tokens, as a tuple of one."""
        assert self.model.side is not None
        return (self.model.side(*h),)


class Link(nn.Module):
    """From the last state of a path to what the next one takes over.

    Args:
        model: the model.
        path: that takes over.
        packed: as above.
    """

    def __init__(self, model: EarlyExitModel, path: int, packed: bool) -> None:
        super().__init__()
        self.model, self.path, self.packed = model, path, packed

    def forward(self, h: Tensors) -> Tensors:
        """To the addend, as a tuple of one."""
        return (self.model.taken_over(self.path, state_of(self.model, h, self.packed)),)


class Route(nn.Module):
    """The router: the parts of a batch to what it says ``(B, paths)``, and the state that it read, if any.

    Args:
        model: the model.
    """

    def __init__(self, model: EarlyExitModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, h: Tensors) -> Tensors:
        """To what it says, and the cheapest path's first state where it read that."""
        said, state = self.model.route(of_parts(h))
        return (said,) if state is None else (said, state)


class Begin(nn.Module):
    """What a policy remembers before the first exit; the parts of a batch say of how many samples.

    Args:
        policy: the policy.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, h: Tensors) -> Tensors:
        """To the policy's state."""
        return tuple(self.policy.init(h[0].shape[0]))


class Ask(nn.Module):
    """A head and what the policy says of its output.

    Args:
        model: the model.
        policy: the policy.
        k: the index of the exit.
        begins: whether the policy's state begins here, for all samples.
        packed: whether the backbone's own state is a tuple.
    """

    def __init__(self, model: EarlyExitModel, policy: Policy, k: int, begins: bool, packed: bool) -> None:
        super().__init__()
        self.model, self.policy, self.exit, self.begins, self.packed = model, policy, k, begins, packed

    def forward(self, h: Tensors, numbers: Tensors, previous: Tensors, state: Tensors) -> Tensors:
        """To the answer ``(n, num_outputs)``, its score ``(n,)``, who leaves ``(n,)``, the head's output, the state.

        Args:
            h: the state that the head reads.
            numbers: the policy's, in the order of ``policy_inputs``.
            previous: the output of the exit asked before, where a score compares with it.
            state: what the policy remembers; at the first exit nothing, but for exits that are forced.
        """
        policy, task = with_numbers(self.policy, numbers), self.model.task
        output = task.keep(self.model.head(self.exit, state_of(self.model, h, self.packed)))
        before = previous[0] if previous else None
        score = score_of(policy, task, self.exit, output, before)
        if self.begins and not isinstance(policy, Forced):
            state = policy.init(output.shape[0])
        decision = policy.step(state, Evidence(self.exit, output, score, task, before))
        answer = output if decision.output is None else decision.output
        return (answer, score, decision.leave, output, *decision.state)


class Final(nn.Module):
    """The final exit; arguments as above."""

    def __init__(self, model: EarlyExitModel, policy: Policy, packed: bool) -> None:
        super().__init__()
        self.model, self.policy, self.packed = model, policy, packed

    def forward(self, h: Tensors, previous: Tensors) -> Tensors:
        """To the output ``(n, num_outputs)`` and its score ``(n,)``."""
        output = self.model.task.keep(self.model.final(state_of(self.model, h, self.packed)))
        before = previous[0] if previous else None
        return output, score_of(self.policy, self.model.task, len(self.model.exits), output, before)


def with_numbers(policy: Policy, numbers: Tensors) -> Policy:
    """A copy of a policy whose numbers are tensors, so that they are inputs of what is traced."""
    traced = copy.copy(policy)
    for name, number in zip(policy_inputs(policy), numbers, strict=True):
        object.__setattr__(traced, name, number)  # a policy is frozen and checks its numbers; a tensor has none yet
    return traced
