"""Small models and data that tests share."""

from __future__ import annotations

import sys

import numpy as np
import timm
import torch
from torch import Tensor

import offramp
from offramp.data import Samples
from offramp.data.samples import from_pixels
from offramp.types import CostTable, Exit, ExitTable, Parts

SIZE = (1, 16, 16)

RECIPE = {
    "name": "small",
    "data": {"source": "digits"},
    "backbone": {
        "name": "vit_tiny_patch16_224",
        "args": {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 32, "depth": 4, "num_heads": 2},
        "preprocessing": {"mean": [0.3], "std": [0.4], "crop_pct": 1.0},
    },
    "exits": [{"after": 1}, {"after": 2}],
    "training": {"epochs": 9, "batch_size": 32, "learning_rate": 0.003, "precision": "fp32"},
    "goal": {"max_drop": 0.05},
}
"""Trains in seconds, on the digits."""


def tiny_vit(num_classes: int = 5, depth: int = 4, **arguments):
    """A timm ViT of four blocks, 16 tokens and width 32."""
    overlay = {"input_size": SIZE, "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0, "interpolation": "bilinear"}
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


def tiny_model(after=(1, 2, 3), head="linear", seed: int = 0, task="classification", **arguments):
    """``tiny_vit`` with exits, in evaluation mode; heads have random weights, so exits disagree."""
    torch.manual_seed(seed)
    outputs = 5 if task == "classification" else 1
    model = offramp.attach(tiny_vit(outputs, **arguments), [Exit(k, head) for k in after], task)
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters()]:
            p.normal_(std=0.3)
    return model.eval()


def images(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, *SIZE, generator=torch.Generator().manual_seed(seed))


def batches(n: int, size: int = 64, classes: int = 5, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Random images and random targets."""
    targets = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    return list(zip(images(n, seed).split(size), targets.split(size), strict=True))


def squares(n: int = 200, classes: int = 4, seed: int = 0) -> Samples:
    """Images that can be learned: a bright square in one of four corners, on noise."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    pixels = rng.integers(0, 90, (n, 16, 16)).astype(np.uint8)
    for i, corner in enumerate(targets):
        y, x = 8 * (corner // 2), 8 * (corner % 2)
        pixels[i, y + 1 : y + 7, x + 1 : x + 7] += 150
    return from_pixels(pixels, targets.astype(np.int64))


def random_table(n: int = 400, exits: int = 3, classes: int = 5, seed: int = 0) -> ExitTable:
    """Exits that are the surer and the better the deeper they are."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (n,), generator=g)
    right = torch.nn.functional.one_hot(targets, classes).float()
    outputs = [
        torch.randn(n, classes, generator=g) + (1.5 + k) * right * torch.rand(n, 1, generator=g)
        for k in range(exits + 1)
    ]
    return ExitTable(
        torch.stack(outputs),
        targets,
        (*range(1, exits + 1), exits + 1),
        ("linear",) * exits + ("final",),
        "classification",
    )


def simple_costs(exits: int = 3, head: float = 1.0) -> CostTable:
    """One block between exits; a block costs 10, stem and final classifier 1."""
    return CostTable(tuple(range(1, exits + 1)), Parts(1.0, (10.0,) * (exits + 1), (head,) * exits, 1.0))


def spread_thresholds(model, x: Tensor) -> tuple[float, ...]:
    """Thresholds that let about a third of the samples leave at each exit."""
    with torch.inference_mode():
        outputs, previous, thresholds = model(x), None, []
        for output in outputs[:-1]:
            thresholds.append(float(model.task.score(model.task.scores[0], output, previous).quantile(0.66)))
            previous = output
    return tuple(thresholds)


def run_cli(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, stdout, stderr."""
    from offramp.cli import main

    monkeypatch.setattr(sys, "argv", ["offramp", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = 0 if stop.code is None else int(stop.code)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
