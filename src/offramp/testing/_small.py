"""Small models and data that can be learned in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from offramp.data import Samples
from offramp.data.samples import from_pixels
from offramp.model import EarlyExitModel, attach
from offramp.tasks import Task, get_task
from offramp.types import Exit

SIZE = (1, 16, 16)
CLASSES = 5


def tiny_vit(num_classes: int = CLASSES, depth: int = 4, **arguments: Any) -> Any:
    """A timm ViT of four blocks, 16 tokens and width 32, for images ``(B, 1, 16, 16)``."""
    overlay: dict[str, Any] = {
        "input_size": SIZE,
        "mean": (0.5,),
        "std": (0.5,),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        in_chans=1,
        num_classes=num_classes,
        embed_dim=32,
        depth=depth,
        num_heads=2,
        pretrained_cfg_overlay=overlay,
        **arguments,
    )


def tiny_model(
    after: Sequence[int] = (1, 2, 3),
    head: str = "linear",
    seed: int = 0,
    task: str | Task = "classification",
    **arguments: Any,
) -> EarlyExitModel:
    """``tiny_vit`` with exits, in evaluation mode; heads have random weights, so exits disagree."""
    torch.manual_seed(seed)
    meaning = get_task(task)
    model = attach(tiny_vit(CLASSES if meaning.classes else 1, **arguments), [Exit(k, head) for k in after], meaning)
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters()]:
            p.normal_(std=0.3)
    return model.eval()


def images(n: int, seed: int = 1) -> Tensor:
    """Noise for ``tiny_vit``, ``(n, 1, 16, 16)``."""
    return torch.randn(n, *SIZE, generator=torch.Generator().manual_seed(seed))


def squares(n: int = 200, classes: int = 4, seed: int = 0) -> Samples:
    """Images that can be learned: a bright square in one of four corners, on noise."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    pixels = rng.integers(0, 90, (n, 16, 16)).astype(np.uint8)
    for i, corner in enumerate(targets):
        y, x = 8 * (corner // 2), 8 * (corner % 2)
        pixels[i, y + 1 : y + 7, x + 1 : x + 7] += 150
    return from_pixels(pixels, targets.astype(np.int64))


def spread_thresholds(model: EarlyExitModel, x: Tensor) -> tuple[float, ...]:
    """Thresholds that let about a third of the samples leave at each exit."""
    previous: Tensor | None = None
    thresholds: list[float] = []
    with torch.inference_mode():
        for output in model(x)[:-1]:
            thresholds.append(float(model.task.score(model.task.scores[0], output, previous).quantile(0.66)))
            previous = output
    return tuple(thresholds)
