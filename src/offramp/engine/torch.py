"""PyTorch, eager and compiled: the model's own modules, on the device that holds them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from offramp.engine.loop import Stages, run_policy
from offramp.engine.runtime import Session, check_precision
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy
from offramp.types import Network, Trace


class TorchStages:
    """A model's own modules, piece by piece.

    Args:
        model: the model; it should be in evaluation mode.
    """

    def __init__(self, model: EarlyExitModel) -> None:
        self.model = model
        self.num_exits = len(model.exits)

    def stem(self, x: Tensor) -> Any:
        """Images ``(B, C, H, W)`` to the state before the first block."""
        return self.model.stem(x)

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k``."""
        return self.model.step(k, h)

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``."""
        return self.model.head(k, h)

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        return self.model.final(h)

    def take(self, h: Any, keep: Tensor) -> Any:
        """The state of some samples: a tensor, or a tuple of tensors, whose first dimension is the sample."""
        return tuple(part[keep] for part in h) if isinstance(h, tuple) else h.index_select(0, keep)


class TorchRuntime:
    """PyTorch as it is; ``bf16`` computes with a copy of the weights.

    Args:
        precision: ``fp32`` or ``bf16``.
        threads: for all of torch in this process; 0 leaves it as it is.
    """

    name = "torch"
    precisions: tuple[str, ...] = ("fp32", "bf16")

    def __init__(self, precision: str = "fp32", threads: int = 0) -> None:
        check_precision(self, precision)
        self.precision = precision
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        if threads:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()

    def static(self, network: nn.Module, example: Tensor) -> Network:
        """The network in evaluation mode."""
        network = self._ready(network)
        device = next(network.parameters()).device

        def call(x: Tensor) -> Tensor:
            with evaluating(network), torch.inference_mode():
                return network(x.to(device, self._dtype)).float()

        return call

    def dynamic(self, model: EarlyExitModel, policy: Policy) -> Session:
        """The compaction loop over the model's modules."""
        ready: EarlyExitModel = self._ready(model)
        stages, usual = self._stages(ready), policy
        device = next(ready.parameters()).device

        def call(x: Tensor, policy: Policy | None = None) -> Trace:
            with evaluating(ready), torch.inference_mode():
                trace = run_policy(stages, x.to(device, self._dtype), policy or usual, ready.task)
            return Trace(trace.output.float(), trace.exit, trace.score)

        return call

    def _stages(self, model: EarlyExitModel) -> Stages:
        return TorchStages(model)

    def _ready(self, network: Any) -> Any:
        return network if self.precision == "fp32" else copy.deepcopy(network).bfloat16()


class CompiledStages(TorchStages):
    """The same, every piece compiled by ``torch.compile`` for any number of samples."""

    def __init__(self, model: EarlyExitModel) -> None:
        super().__init__(model)

        def first(x: Tensor) -> Any:
            return model.step(0, model.stem(x))

        pieces: list[Any] = [first, *(partial(model.step, k) for k in range(1, self.num_exits + 1))]
        self._segments = [torch.compile(piece, dynamic=True) for piece in pieces]
        heads: list[Any] = [partial(model.head, k) for k in range(self.num_exits)]
        self._heads = [torch.compile(head, dynamic=True) for head in heads]
        self._final = torch.compile(model.final, dynamic=True)

    def stem(self, x: Tensor) -> Any:
        """The images: the stem is compiled with the first segment."""
        return x

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k``."""
        return self._segments[k](h)

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``."""
        return self._heads[k](h)

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        return self._final(h)


class CompiledRuntime(TorchRuntime):
    """``torch.compile``, one graph a segment and a head; the first calls compile and take long."""

    name = "torch-compiled"

    def static(self, network: nn.Module, example: Tensor) -> Network:
        """The network, compiled."""
        return super().static(torch.compile(network, dynamic=True), example)  # type: ignore[arg-type]

    def _stages(self, model: EarlyExitModel) -> Stages:
        return CompiledStages(model)
