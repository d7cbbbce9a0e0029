"""What is trained: the backbone, then each head in each form at each place, by several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BACKBONE = "vit_tiny_patch16_224"
DEPTH = 12
QUARTERS = (3, 6, 9)
"""Places where the order of heads is compared, by the first seeds and the others alike."""

FINE_TUNING: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "weight_decay": 0.05,
    "warmup_epochs": 0.5,
    "precision": "fp32",
    "augment": {"scale": (0.6, 1.0), "hflip": 0.5, "color_jitter": None},
    "seed": 0,
}
HEADS: dict[str, Any] = {
    "objective": "frozen",
    "schedule": "plateau",
    "epochs": 12,
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.02,
    "clip": None,
    "precision": "fp32",
}
"""The authors': Adam, the rate times 0.6 after two epochs without gain, the end after five, and the gradient of an L2
penalty of 0.01. Theirs learn at 0.0001 from ten times as many images; so few steps need a larger rate."""

SEVEN = ("mlp", "cnn-ignore", "cnn-add", "cnn-project", "vit", "resmlp", "mixer")
OTHERS = ("linear", "lph", "gah", "sl-vit")
PORTS: Mapping[str, dict[str, Any]] = {
    "mlp": {"hidden": (768, 192), "activation": "gelu", "dropout": 0.0},
    "cnn-ignore": {"hidden": ()},
    "cnn-add": {"hidden": ()},
    "cnn-project": {"hidden": (), "project": "token"},
    "vit": {"hidden": (), "block_dropout": 0.0},
    "resmlp": {"hidden": (), "class_token": "drop", "init_values": 0.1},
    "mixer": {"hidden": (), "class_token": "drop", "norm": "channels"},
}
"""The seven as ports of the paper have them; the defaults are the authors' form."""


@dataclass(frozen=True)
class Field:
    """Where the comparison takes place.

    Args:
        name: what to call the data in the result.
        side: pixels of an image.
        train: how many training images.
        validation: how many are cut off for validation.
        test: how many test images; all if None.
        authors: the authors' accuracies in per cent on the same data, after the quarters of the depth, by head.
    """

    name: str
    side: int
    train: int
    validation: int
    test: int | None
    authors: Mapping[str, tuple[float, float, float]]


FIELDS = {
    "cifar10": Field(
        "CIFAR-10 (JPEG copy)",
        96,
        5_000,
        2_000,
        None,
        {
            "mlp": (58.42, 87.19, 96.07),
            "cnn-ignore": (85.10, 94.02, 97.62),
            "cnn-add": (86.25, 93.94, 97.43),
            "cnn-project": (86.76, 94.24, 97.37),
            "vit": (89.83, 96.04, 97.67),
            "resmlp": (90.45, 94.76, 97.63),
            "mixer": (85.49, 93.79, 97.08),
        },
    ),
    "fashion_mnist": Field(
        "Fashion-MNIST",
        96,
        5_000,
        2_000,
        None,
        {
            "mlp": (82.65, 92.23, 94.67),
            "cnn-ignore": (93.49, 94.12, 94.58),
            "cnn-add": (93.83, 93.54, 94.71),
            "cnn-project": (94.13, 93.84, 94.65),
            "vit": (92.61, 94.19, 94.85),
            "resmlp": (93.64, 93.68, 94.74),
            "mixer": (93.26, 93.94, 94.78),
        },
    ),
}


@dataclass(frozen=True)
class Run:
    """One kind of head, in one form, at some places, by one seed.

    Args:
        head: which.
        form: ``authors``, ``ports``, or ``own`` for heads of other papers.
        places: blocks after which it stands.
        seed: of its weights and of the order of the images.
    """

    head: str
    form: str
    places: tuple[int, ...]
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.head}-{self.form}-{self.seed}"

    @property
    def options(self) -> Mapping[str, Any]:
        """Of the head."""
        return PORTS[self.head] if self.form == "ports" else {}


def runs(seeds: int) -> list[Run]:
    """All of them: the first seed of the authors' form and of other papers' heads at every block, else the quarters."""
    every = tuple(range(1, DEPTH))
    found = []
    for seed in range(seeds):
        places = QUARTERS if seed else every
        found += [Run(head, "authors", places, seed) for head in SEVEN]
        found += [Run(head, "own", places, seed) for head in OTHERS]
        found += [Run(head, "ports", QUARTERS, seed) for head in SEVEN]
    return found
