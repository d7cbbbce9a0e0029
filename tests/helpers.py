"""Small models and data that tests share."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor

from offramp._batches import Inputs
from offramp.inputs import ImageInput, LogMelInput, PairInput
from offramp.model import EarlyExitModel, attach
from offramp.testing._small import SIZE, images, spread_thresholds, squares, tiny_model, tiny_vit
from offramp.types import CostTable, Exit, ExitTable, Part, PartCosts

__all__ = ["SIZE", "images", "spread_thresholds", "squares", "tiny_model", "tiny_vit"]


def model_of(task: str) -> EarlyExitModel:
    """A small model of a task, whose exits sometimes agree; of ``density`` all of them answer maps.

    ``pair`` has classes, and exits for sight alone and for both sight and sound.
    """
    if task == "pair":
        return pair_model([Exit(1), Exit(1, "sl-vit", side="append"), Exit(2, side="film")], "film")
    if task != "density":
        return tiny_model(seed=2, task=task)
    torch.manual_seed(2)
    model = attach(tiny_vit(1), [Exit(k, "density") for k in (1, 2, 3)], task, final="density")
    with torch.no_grad():  # the maps of all exits differ as their answers do elsewhere
        for head in (*model.heads, model.get_classifier()):
            head.maps[-1].weight.normal_(std=0.5)
    return model.eval()


def pair_model(exits: Sequence[Exit], final: str | None = None, vit: Any = None) -> EarlyExitModel:
    """A small ViT with a CNN for sound beside it; the final exit hears where ``final`` says how."""
    torch.manual_seed(2)
    sound = (1, 32, 21)
    overlay = {"input_size": sound}
    small = {"in_chans": 1, "num_classes": 0, "channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}
    side = timm.create_model("resnet18", pretrained_cfg_overlay=overlay, **small)
    vit = tiny_vit() if vit is None else vit
    reads = PairInput(ImageInput.for_backbone(vit, SIZE), LogMelInput(sound, 8_000, 0.5, 256))
    last = None if final is None else Exit(4, side=final)
    model = attach(vit, exits, model_input=reads, side=side, final=last)
    with torch.no_grad():  # exits disagree, and the sound changes what they say
        for p in [*model.heads.parameters(), *model.get_classifier().parameters()]:
            p.normal_(std=0.3)
    return model.eval()


def path_model(link: str = "none", router: str | None = None, seed: int = 2) -> EarlyExitModel:
    """Two paths with an exit each: an exit, the cheap path's classifier, an exit, the final exit.

    With a router, ``middle`` is a bias that sends as many samples to either.
    """
    torch.manual_seed(seed)
    options: dict[str, Any] = {"after": 1, "head": "linear"} if router == "exit" else {}
    part = None if router is None else Part(router, options)
    model = attach(tiny_vit(), [Exit(2)], tails=[2, 4], link=link, router=part)
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters(), *model.links.parameters()]:
            p.normal_(std=0.3)
    if router is not None:  # as many on either side
        said = model.eval().route(images(400))[0].detach()
        model.middle = (0.0, float((said[:, 0] - said[:, 1]).quantile(0.4)))
    return model.eval()


def inputs(model: EarlyExitModel, n: int) -> Inputs:
    """Noise for a model; the same as ``images`` for one that reads images alone."""
    return model.input.example(n, torch.Generator().manual_seed(1))


class Killed:
    """Reads so many samples, and no more."""

    def __init__(self, read, after):
        self.read, self.left = read, after

    def __call__(self, i):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.read(i)


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


def batches(n: int, size: int = 64, classes: int = 5, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Random images and random targets."""
    targets = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    return list(zip(images(n, seed).split(size), targets.split(size), strict=True))


def noise_file(file: Path, side: int, train: int, validation: int, test: int) -> str:
    """An ``.npz`` of three splits of noise, ten classes that differ in brightness."""
    rng, n = np.random.default_rng(0), train + validation + test
    labels = np.arange(n) % 10
    pixels = (rng.random((n, side, side, 3)) * 200 + 5 * labels[:, None, None, None]).astype(np.uint8)
    ends = np.cumsum([0, train, validation, test])
    rows = {name: slice(*ends[i : i + 2]) for i, name in enumerate(("train", "validation", "test"))}
    arrays = {f"{kind}_{name}": a[at] for name, at in rows.items() for kind, a in (("x", pixels), ("y", labels))}
    np.savez(file, classes=np.array(list("abcdefghij")), **arrays)
    return str(file)


def points_file(file: Path, images: Sequence[np.ndarray], points: Sequence[np.ndarray], **arrays: np.ndarray) -> Path:
    """An ``.npz`` of images (pixels ``(h, w)`` or ``(h, w, 3)``, as PNG) with points on them, and of other arrays."""
    made = []
    for pixels in images:
        written = io.BytesIO()
        Image.fromarray(pixels).save(written, "PNG")
        made.append(np.frombuffer(written.getvalue(), np.uint8))
    given = {
        "bytes": np.concatenate(made),
        "offsets": np.cumsum([0, *map(len, made)]),
        "points_xy": np.concatenate([np.asarray(p, np.float32).reshape(-1, 2) for p in points]),
        "point_offsets": np.cumsum([0, *map(len, points)]),
    }
    np.savez(file, **{name: array for name, array in {**given, **arrays}.items() if array is not None})
    return file


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
    return CostTable(tuple(range(1, exits + 1)), PartCosts(1.0, (10.0,) * (exits + 1), (head,) * exits, 1.0))


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
