"""PyTorch, eager and compiled: the model's own modules, on the device that holds them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from offramp._batches import Inputs, to
from offramp.engine.loop import Segments, run_policy
from offramp.engine.runtime import Session, check_precision
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy
from offramp.types import Network, Trace


class TorchSegments:
    """A model's own modules, piece by piece.

    Args:
        model: the model; it should be in evaluation mode.
    """

    def __init__(self, model: EarlyExitModel) -> None:
        self.model = model
        self.chain = model.chain
        self._like = next(model.parameters())

    def route(self, x: Inputs) -> tuple[Tensor, Any]:
        """What the router says, float32 ``(B, paths)``, and the cheapest path's first state where it read that."""
        return self.model.route(to(x, self._like))

    def enter(self, path: int, x: Inputs, h: Any = None) -> Any:
        """A batch, of any type and on any device, to the state before a path's first segment."""
        return self.model.enter(path, to(x, self._like), h)

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k``."""
        return self.model.step(k, h)

    def hear(self, h: Any) -> Any:
        """The state with another modality encoded."""
        return self.model.hear(h)

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``."""
        return self.model.head(k, h)

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        return self.model.final(h)


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
        if threads:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()

    def static(self, network: nn.Module, example: Inputs) -> Network:
        """The network in evaluation mode."""
        network = self._ready(network)
        like = next(network.parameters())

        def call(x: Inputs) -> Tensor:
            with evaluating(network), torch.inference_mode():
                return network(to(x, like)).float()

        return call

    def dynamic(self, model: EarlyExitModel, policy: Policy) -> Session:
        """The compaction loop over the model's modules."""
        segments, usual = self.segments(model), policy
        device = next(model.parameters()).device

        def call(x: Inputs, policy: Policy | None = None) -> Trace:
            with evaluating(model), torch.inference_mode():
                return run_policy(segments, to(x, device), policy or usual, model.task)

        return call

    def segments(self, model: EarlyExitModel) -> Segments:
        """The model in pieces, in this runtime's precision, for a loop of one's own: ``run_until``, ``advance``."""
        return self._pieces(self._ready(model))

    def _pieces(self, model: EarlyExitModel) -> Segments:
        return TorchSegments(model)

    def _ready(self, network: Any) -> Any:
        return network if self.precision == "fp32" else copy.deepcopy(network).bfloat16().eval()


class CompiledSegments(TorchSegments):
    """The same, every piece compiled by ``torch.compile`` for any number of samples."""

    def __init__(self, model: EarlyExitModel) -> None:
        super().__init__(model)

        exits, starts = range(len(model.exits)), model.chain.starts
        # a path's stem is one graph with its first segment, where nothing else is read or added between the two
        self._joined = not model.links and not (model.router is not None and model.router.after)

        def first(path: int, x: Inputs) -> Any:
            return model.step(starts[path], model.enter(path, x))

        pieces: list[Any] = [partial(model.step, k) for k in (*exits, len(model.exits))]
        for path, k in enumerate(starts if self._joined else ()):
            pieces[k] = partial(first, path)
        self._segments = [torch.compile(piece, dynamic=True) for piece in pieces]
        self._enter = torch.compile(model.enter, dynamic=True)
        self._route = torch.compile(model.route, dynamic=True)
        self._hear = torch.compile(model.hear, dynamic=True)
        self._heads = [torch.compile(partial(model.head, k), dynamic=True) for k in exits]
        self._final = torch.compile(model.final, dynamic=True)

    def route(self, x: Inputs) -> tuple[Tensor, Any]:
        """What the router says, and the cheapest path's first state where it read that."""
        found: tuple[Tensor, Any] = self._route(to(x, self._like))
        return found

    def enter(self, path: int, x: Inputs, h: Any = None) -> Any:
        """The state before a path's first segment; the batch, where the stem is compiled with that segment."""
        x = to(x, self._like)
        return x if self._joined else self._enter(path, x, h)

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k``."""
        return self._segments[k](h)

    def hear(self, h: Any) -> Any:
        """The state with another modality encoded."""
        return self._hear(h)

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``."""
        return self._heads[k](h)

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        return self._final(h)


class CompiledRuntime(TorchRuntime):
    """``torch.compile``, one graph a segment and a head; the first calls compile and take long."""

    name = "torch-compiled"

    def static(self, network: nn.Module, example: Inputs) -> Network:
        """The network, compiled."""
        return super().static(torch.compile(network, dynamic=True), example)  # type: ignore[arg-type]

    def _pieces(self, model: EarlyExitModel) -> Segments:
        return CompiledSegments(model)
