"""What backbones whose states are feature maps have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import to_2tuple
from torch import Tensor

from offramp.types import Tap


def map_tokens(h: Tensor, channels_last: bool = False) -> Tensor:
    """A map ``(B, C, h, w)``, or ``(B, h, w, C)`` with channels last, as tokens ``(B, h·w, C)``."""
    return h.flatten(1, 2) if channels_last else h.flatten(2).transpose(1, 2)


def map_taps(
    model: Any, stem: Callable[[Tensor], Tensor], steps: Sequence[Any], size: Sequence[int], channels_last: bool = False
) -> list[Tap]:
    """A tap after every step, with the shapes that one blank image of ``size`` (C, H, W) has there."""
    taps = []
    training = [m for m in model.modules() if m.training]
    model.eval()
    with torch.no_grad():
        h = stem(torch.zeros(1, *size, device=next(model.parameters()).device))
        for after, step in enumerate(steps, start=1):
            h = step(h)
            rows, columns, dim = h.shape[1:] if channels_last else (*h.shape[2:], h.shape[1])
            taps.append(Tap(after, int(dim), (int(rows), int(columns))))
    for m in training:
        m.training = True
    return taps


def input_size(model: Any) -> tuple[int, int, int]:
    """Channels, height and width that the model was built for, as far as timm says."""
    channels, height, width = model.pretrained_cfg.get("input_size", (3, 224, 224))
    if (size := getattr(getattr(model, "patch_embed", model), "img_size", None)) is not None:
        height, width = to_2tuple(size)
    return getattr(model, "in_chans", channels), height, width
