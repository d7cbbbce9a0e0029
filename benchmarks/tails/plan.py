"""What is trained: the runs of the comparison, each with what it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from offramp import Exit, Part

SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "weight_decay": 0.05,
    "warmup_epochs": 0.5,
    "precision": "fp32",
    "augment": {"scale": (0.5, 1.0), "hflip": 0.5, "color_jitter": None},
}
"""What all runs share that train the encoder."""
FROZEN_SETTINGS: dict[str, Any] = {**SETTINGS, "epochs": 3, "batch_size": 64, "learning_rate": 1e-3}
"""What all runs share that train a router, or heads, on a frozen encoder."""
MT_VIT: dict[str, Any] = {"target": 0.4, "decay": 0.993}
"""Of the objective: the temperature is at its lowest after about two passes."""
EXITS = (Exit(3, "lph"), Exit(6, "lph"), Exit(9, "gah"))
BACKBONE = "vit_tiny_patch16_224"


@dataclass(frozen=True)
class Field:
    """Where the comparison takes place.

    Args:
        name: what to call the data in the result.
        side: pixels of an image.
        grids: rows of tokens of each path.
        sides: of images for the same network alone, the dearest last.
        train: how many training images; all if None.
        test: how many test images; all if None.
        preprocessing: what differs from timm's data configuration.
    """

    name: str
    side: int
    grids: tuple[int, ...]
    sides: tuple[int, ...]
    train: int | None = None
    test: int | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


FIELDS = {
    "imagenette": Field("Imagenette", 224, (7, 10, 14), (112, 160, 224), preprocessing={"crop_pct": 1.0}),
    "cifar10": Field(
        "CIFAR-10 (JPEG copy)", 160, (5, 7, 10), (80, 112, 160), 5_000, 4_000, preprocessing={"crop_pct": 1.0}
    ),
}


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        name: of the run; its folder has this name.
        side: pixels of an image.
        tails: rows of tokens of each path; one path if empty.
        exits: early exits.
        link: from one path to the next.
        router: what says where a sample enters.
        objective: a name of ``offramp.registry.OBJECTIVES``.
        options: of the objective.
        base: the run whose backbone it starts from; None for the pretrained one.
        start: the run whose weights it starts from, those of tails, links and heads among them.
        settings: of ``offramp.train``.
        shared_heads: whether paths share their exits' heads.
        taught: whether the backbone that it starts from teaches.
        network: timm's name of the backbone.
        depth: how many of its blocks are used, all if None.
    """

    name: str
    side: int
    tails: tuple[int, ...] = ()
    exits: tuple[Exit, ...] = ()
    link: str = "none"
    router: Part | None = None
    objective: str = "self-distillation"
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None
    start: str | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: SETTINGS)
    shared_heads: bool = True
    taught: bool = False
    network: str = BACKBONE
    depth: int | None = None

    def seeded(self, seed: int) -> Run:
        """The same run with a seed."""
        base, start = (None if name is None else f"{name}-{seed}" for name in (self.base, self.start))
        return replace(
            self, name=f"{self.name}-{seed}", base=base, start=start, settings={**self.settings, "seed": seed}
        )


def runs(place: Field) -> list[Run]:
    """The runs of one seed, in an order in which each comes after what it starts from.

    The pretrained backbone is fine-tuned at full size first. Everything else starts from that, and sees the data
    equally often: tails, links, exits, and the same network at smaller images. Routers are trained on the frozen
    encoder of ``tails``, so that they are compared with the cascade on identical weights, as are the heads of
    ``tails-exits``, which cost the tails nothing; ``tails`` has a router of its own that was trained with the encoder.
    Links join the cheapest path and the dearest.
    """
    cnn, early = Part("cnn"), Part("exit", {"after": 2})
    *smaller, whole = place.sides
    base = Run(f"static{whole}", whole, objective="backbone")
    after = replace(base, base=base.name)
    tails = replace(after, name="tails", tails=place.grids, router=cnn, objective="mt-vit", options=MT_VIT)
    alone = {**MT_VIT, "encoder": False}
    on_frozen = replace(tails, base=None, start="tails", settings=FROZEN_SETTINGS)
    labels = replace(on_frozen, name="cnn-labels", objective="mt-vit-supervised", options={})
    ends = (place.grids[0], place.grids[-1])
    return [
        base,
        tails,
        *(replace(after, name=f"static{side}", side=side) for side in smaller),
        replace(on_frozen, name="cnn-gumbel", options=alone),
        labels,
        replace(labels, name="exit-labels", router=early),
        replace(labels, name="tails-exits", start="cnn-labels", exits=EXITS, objective="frozen"),
        replace(after, name="exits", exits=EXITS, objective="self-distillation"),
        replace(after, name="links", tails=ends, link="recycle", objective="self-distillation"),
    ]


OWN_HEADS = "own-heads"
"""The run in which every path has heads of its own, for one seed."""


def own_heads(place: Field) -> Run:
    """``tails-exits`` with a head for each exit on each path."""
    (heads,) = (run for run in runs(place) if run.name == "tails-exits")
    return replace(heads, name=OWN_HEADS, shared_heads=False)


SIZES = {"cnn-large": (64, 128, 256, 512), "cnn-larger": (96, 192, 384, 768)}
"""Runs of one seed in which the predictor costs 14 and 32 times as much, with its channels."""


def large_routers(place: Field) -> list[Run]:
    """``cnn-labels`` with larger predictors."""
    (labels,) = (run for run in runs(place) if run.name == "cnn-labels")
    return [replace(labels, name=name, router=Part("cnn", {"widths": list(widths)})) for name, widths in SIZES.items()]
