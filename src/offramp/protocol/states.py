"""Samples between two segments, as a request: tokens in int8, the rest as it is, and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp._batches import flat, to
from offramp.engine.loop import Cohort, Segments, Walk
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.protocol.oip import Values
from offramp.serving.turns import Bounded

_SMALL = 64
"""Values of a sample, up to which they are sent as they are."""
_SCALE = ".scale"


class States:
    """How samples of a model are sent from one machine to another between two segments.

    The state of the backbone is rounded to int8, with one scale for each token, or each channel of a map (absolute
    maximum; our choice); what the policy remembers and what the exit said stays as it is. Both machines have the same
    model, so nothing says which values these are but their names.

    Args:
        model: of one path; on others a sample may begin anew behind a path's end, which needs the sample itself.
        policy: what remembers something of each sample.
        segments: what computes here.
    """

    def __init__(self, model: EarlyExitModel, policy: Policy, segments: Segments) -> None:
        self.model, self.policy, self.segments = model, policy, segments

    def write(self, cohort: Cohort, output: Tensor, score: Tensor) -> dict[str, Values]:
        """The inputs of a request.

        Args:
            cohort: samples behind an exit.
            output: what they were answered there, ``(n, num_outputs)``; an ensemble answers otherwise than the exit.
            score: how sure it was, ``(n,)``.
        """
        found: dict[str, Values] = {}
        for name, tensor in _named(cohort.h):
            if not _is_rounded(tensor):
                found[name] = _array(tensor)
                continue
            values = tensor.detach().float().cpu()
            scale = values.abs().flatten(2).amax(2).clamp(min=1e-12) / 127
            spread = scale.reshape(*scale.shape, *(1,) * (values.ndim - 2))
            found[name] = (values / spread).round().to(torch.int8).numpy()
            found[name + _SCALE] = scale.numpy()
        found |= {f"state{i}": _array(tensor) for i, tensor in enumerate(cohort.state)}
        assert cohort.previous is not None
        found |= {"previous": _array(cohort.previous.float()), "score": _array(score.float())}
        return found if torch.equal(cohort.previous, output) else found | {"output": _array(output.float())}

    def read(self, k: int, inputs: Mapping[str, Values]) -> tuple[Cohort, Tensor, Tensor]:
        """Back from the inputs of a request: the cohort, on the model's device, its answers at exit ``k``, its scores.

        Raises:
            UsageError: a model of several paths, or an exit that is not asked.
            DataError: other inputs than these, of other shapes, or not finite.
        """
        like = self.blank(k)
        device = like.rows.device
        n = len(inputs["previous"]) if "previous" in inputs else 0
        wanted: dict[str, tuple[tuple[int, ...], str]] = {}
        for name, tensor in _named(like.h):
            own = tuple(tensor.shape[1:])
            wanted[name] = own, "int8" if _is_rounded(tensor) else _array(tensor).dtype.name
            if _is_rounded(tensor):
                wanted[name + _SCALE] = own[:1], "float32"
        wanted |= {f"state{i}": (tuple(t.shape[1:]), _array(t).dtype.name) for i, t in enumerate(like.state)}
        answers = ("previous", "output") if "output" in inputs else ("previous",)
        wanted |= {name: ((self.model.num_outputs,), "float32") for name in answers} | {"score": ((), "float32")}
        arrays = _checked(inputs, wanted, n)
        parts = iter(
            [_back(arrays[name], arrays.get(name + _SCALE)).to(device, tensor.dtype) for name, tensor in _named(like.h)]
        )
        h = _as(like.h, parts)
        state = tuple(_back(arrays[f"state{i}"]).to(device, t.dtype) for i, t in enumerate(like.state))
        previous, output, score = (_back(arrays[name]).to(device) for name in ("previous", answers[-1], "score"))
        return Cohort(torch.arange(n, device=device), h, state, previous), output, score

    @functools.cache  # noqa: B019 - as long as the server lives
    def blank(self, k: int) -> Cohort:
        """One blank sample behind an exit. Raises ``UsageError`` for one that is not asked, or for several paths."""
        if self.model.chain.num_paths > 1:
            raise UsageError(
                "only models of one path are resumed: on others a sample may begin anew behind a path's end"
            )
        if k not in self.policy.heads:
            raise UsageError(f"exit {k} is not asked; these are: {', '.join(map(str, self.policy.heads))}")
        never = torch.tensor([len(self.model.exits)]), torch.tensor([math.inf])
        stay: Any = Bounded(self.policy, *never, getattr(self.policy, "temperatures", ()))
        x = to(self.model.input.example(1), next(self.model.parameters()).device)
        with torch.inference_mode():
            walk = Walk(self.segments, x, stay, self.model.task)
            for reached, _ in walk:
                if reached == k:
                    break
        assert walk.cohort is not None
        return walk.cohort


def _named(h: Any) -> list[tuple[str, Tensor]]:
    return [(f"h{i}", tensor) for i, tensor in enumerate(flat(h))]


def _is_rounded(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 2 and tensor[0].numel() > _SMALL


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _back(array: Values, scale: Values | None = None) -> Tensor:
    tensor = torch.from_numpy(np.asarray(array))
    if scale is None:
        return tensor
    factor = torch.from_numpy(np.asarray(scale))
    return tensor.float() * factor.reshape(*factor.shape, *(1,) * (tensor.ndim - 2))


def _as(like: Any, parts: Any) -> Any:
    """The tensors in the form of a state of tuples within tuples."""
    return tuple(_as(part, parts) for part in like) if isinstance(like, tuple) else next(parts)


def _checked(
    inputs: Mapping[str, Values], wanted: Mapping[str, tuple[tuple[int, ...], str]], n: int
) -> dict[str, np.ndarray]:
    """The inputs, which are those that are wanted."""
    if inputs.keys() != wanted.keys():
        raise DataError(
            f"the inputs of samples that go on are {', '.join(wanted)}; the request has {', '.join(inputs)}"
        )
    found: dict[str, np.ndarray] = {}
    for name, (shape, kind) in wanted.items():
        values = inputs[name]
        if isinstance(values, list) or values.shape != (n, *shape) or values.dtype.name != kind:
            raise DataError(f"input {name!r} of samples that go on is {kind} {[n, *shape]}")
        remembered = name.startswith("state")  # infinity may stand there for nothing yet
        if values.dtype.kind == "f" and not remembered and not np.isfinite(values).all():
            raise DataError(f"input {name!r} holds values that are not finite (NaN or infinity)")
        found[name] = values
    return found
