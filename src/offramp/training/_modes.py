"""Which parameters learn, and which modules are in training mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from offramp._batches import to
from offramp.errors import UsageError
from offramp.model import EarlyExitModel, evaluating


def used_by(model: EarlyExitModel, k: int) -> list[nn.Parameter]:
    """The parameters that the output of an exit depends on, its head and all blocks before it; found by a gradient."""
    parameters = list(model.parameters())
    wanted = [p.requires_grad for p in parameters]
    try:
        model.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            output = model(to(model.input.example(2), parameters[0].device))[k]
            gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    finally:
        for p, value in zip(parameters, wanted, strict=True):
            p.requires_grad_(value)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]


def check_one_path(model: EarlyExitModel, what: str) -> None:
    """Raise ``UsageError`` where a model has several paths, which a method does not know."""
    if model.chain.num_paths > 1:
        raise UsageError(f"{what} trains one path, and this model has {model.chain.num_paths}: take joint, or mt-vit")


@contextmanager
def only(trained: Iterable[nn.Parameter], model: nn.Module) -> Iterator[None]:
    """Inside, only these parameters learn; outside, gradients are asked for as before.

    A module is in training mode where all its parameters learn; one without parameters follows the module around it.
    """
    wanted = {p: p.requires_grad for p in model.parameters()}
    model.requires_grad_(False)
    for p in trained:
        p.requires_grad_(True)
    _set_modes(model, True)
    try:
        yield
    finally:
        for p, value in wanted.items():
            p.requires_grad_(value)


def _set_modes(module: nn.Module, around: bool) -> None:
    learning = [p.requires_grad for p in module.parameters()]
    module.training = all(learning) if learning else around
    for child in module.children():
        _set_modes(child, module.training)


@contextmanager
def attention_for(device: torch.device, model: nn.Module) -> Iterator[None]:
    """On a processor, timm's plain attention: torch's fused one has a very slow backward pass at short sequences."""
    fused: list[Any] = [m for m in model.modules() if getattr(m, "fused_attn", False)] if device.type == "cpu" else []
    for m in fused:
        m.fused_attn = False
    try:
        yield
    finally:
        for m in fused:
            m.fused_attn = True


@contextmanager
def activations(model: EarlyExitModel, again: bool) -> Iterator[None]:
    """Inside, the activations of blocks are kept for the way back, or computed again."""
    before = model.grad_checkpointing
    model.set_grad_checkpointing(again or before)
    try:
        yield
    finally:
        model.set_grad_checkpointing(before)
