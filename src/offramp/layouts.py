"""The papers' placements of exits, as lists of ``Exit`` for ``attach``."""

from __future__ import annotations

from typing import Any

import torch

from offramp.backbones import cut
from offramp.cost import profile
from offramp.errors import UsageError
from offramp.model import attach
from offramp.types import Exit

_LOCAL, _POINTWISE = Exit(1, "lph"), Exit(1, "lph", {"depthwise": False})


def _global(stride: int) -> Exit:
    return Exit(1, "gah", {"stride": stride})


_VIT = {
    8: (_LOCAL, _LOCAL, _POINTWISE, _POINTWISE, _global(2), _global(2), _global(3), _global(3)),
    6: (_LOCAL, _POINTWISE, _global(2), _global(2), _global(3), _global(3)),
    4: (_LOCAL, _POINTWISE, _global(2), _global(3)),
    2: (_LOCAL, _global(2)),
}
_SWIN = (_LOCAL, _LOCAL, _POINTWISE, _POINTWISE, _global(1), _global(1), _global(2), _global(2))
_SWIN_AFTER = (4, 7, 10, 13, 16, 19, 22, 23)


def lgvit(backbone: Any, exits: int = 8) -> list[Exit]:
    """LGViT's layout (2308.00255): local heads in the shallow half, global heads in the deep half.

    For ViT-B and DeiT-B (12 blocks) eight exits after blocks 4 to 11, for Swin-B (24 blocks) after 4, 7, 10, 13, 16,
    19, 22 and 23, as published. The variants with 2, 4 and 6 exits have the published heads; where the paper puts them
    could not be read, so they are spread evenly over the same blocks. For other depths all places scale with the depth.

    Args:
        backbone: a timm model.
        exits: 8; or 2, 4 or 6 on a ViT or DeiT.

    Raises:
        UsageError: another number, or a backbone too shallow for it.
    """
    cut_model = cut(backbone)
    depth = len(cut_model.steps)
    swin = type(cut_model).__name__ == "SwinBackbone"
    if exits not in _VIT or (swin and exits != 8):
        raise UsageError(f"LGViT has no layout with {exits} exits on this backbone; 8, or 2, 4, 6 on a ViT")
    heads = _SWIN if swin else _VIT[exits]
    places = _SWIN_AFTER if swin else torch.linspace(4, 11, exits).round().int().tolist()
    scaled = [round(place * depth / (24 if swin else 12)) for place in places]
    if len(set(scaled)) < exits or scaled[0] < 1 or scaled[-1] >= depth:
        raise UsageError(f"{exits} exits do not fit a backbone of {depth} blocks")
    return [Exit(after, head.head, head.options) for after, head in zip(scaled, heads, strict=True)]


def multi_exit(backbone: Any, head: str = "cnn-add", **options: Any) -> list[Exit]:
    """The places of 2106.15183: one of its heads, a module of its own, after every block but the last.

    Args:
        backbone: a timm model.
        head: one of the seven, or any other.
        options: of the head.
    """
    return [Exit(after, head, options) for after in range(1, len(cut(backbone).steps))]


def every_block(backbone: Any, head: str = "linear") -> list[Exit]:
    """One exit after every block but the last (SDN, PABEE, PCEE and BERxiT in LGViT's comparison)."""
    return multi_exit(backbone, head)


def equal_macs(backbone: Any, exits: int, head: str = "linear") -> list[Exit]:
    """Exits that cut the backbone's multiply-adds into parts as equal as its blocks allow.

    Args:
        backbone: a timm model.
        exits: how many.
        head: which head stands at each.

    Raises:
        UsageError: more exits than places.
    """
    macs = profile(attach(backbone, []), repeats=0).macs
    spent = torch.tensor([macs.stem, *macs.steps[:-1]], dtype=torch.float64).cumsum(0)[1:]
    if not 1 <= exits <= len(spent):
        raise UsageError(f"{exits} exits on a backbone with {len(spent)} places")
    places: list[int] = []
    for k in range(1, exits + 1):
        first, last = (places[-1] + 1 if places else 1), len(spent) - (exits - k)
        distance = (spent[first - 1 : last] - macs.static * k / (exits + 1)).abs()
        places.append(first + int(distance.argmin()))
    return [Exit(after, head) for after in places]
