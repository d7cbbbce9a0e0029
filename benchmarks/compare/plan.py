"""What is trained: the runs of the comparison, each with what it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from offramp import Exit, layouts
from offramp.recipe import BackboneSection
from offramp.registry import HEADS as KNOWN

BACKBONE = BackboneSection(
    name="xcit_nano_12_p8_224",
    args={"img_size": 32},
    preprocessing={
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.247, 0.2435, 0.2616),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    },
)
QUARTERS = (3, 6, 9)
HEADS = tuple(name for name in KNOWN if name not in ("lens", "density"))
"""Those of the four papers, and ``linear``."""
METHODS = ("frozen", "joint", "alternating-weighted", "mixed", "self-distillation", "lgvit")
SEVEN: Mapping[str, dict[str, Any]] = {
    "mlp": {"hidden": (512, 128), "activation": "gelu", "dropout": 0.0},
    "cnn-ignore": {"hidden": ()},
    "cnn-add": {"hidden": ()},
    "cnn-project": {"hidden": (), "project": "token"},
    "vit": {"hidden": (), "block_dropout": 0.0},
    "mixer": {"hidden": (), "class_token": "drop", "norm": "channels"},
    "resmlp": {"hidden": (), "class_token": "drop", "init_values": 0.1},
}
"""The heads of 2106.15183 as their ports have them, with little behind them, and not as their authors built them."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        name: of the run; its folder has this name.
        exits: from the timm model to where the heads stand.
        objective: a name of ``offramp.registry.OBJECTIVES``.
        options: of the objective.
        start: the run whose backbone it starts from; None for random weights.
        settings: what differs from the settings that all runs share.
        depth: blocks of the backbone.
    """

    name: str
    exits: Callable[[Any], list[Exit]]
    objective: str
    options: dict[str, Any] = field(default_factory=dict)
    start: str | None = "backbone"
    settings: dict[str, Any] = field(default_factory=dict)
    depth: int = 12


def _none(model: Any) -> list[Exit]:
    return []


def all_heads(model: Any) -> list[Exit]:
    """Every head at a quarter, half and three quarters of the depth."""
    return [Exit(after, head, SEVEN.get(head, {})) for head in HEADS for after in QUARTERS]


def layout(name: str) -> Callable[[Any], list[Exit]]:
    """LGViT's heads, or one kind of head in the places of LGViT's eight."""

    def exits(model: Any) -> list[Exit]:
        places = layouts.lgvit(model)
        return places if name == "lgvit" else [Exit(e.after, name, SEVEN.get(name, {})) for e in places]

    return exits


def runs(best: str, pretrain: int, epochs: int, seeds: int, small_depth: int) -> list[Run]:
    """All runs in an order in which each comes after what it starts from.

    Every way of training sees the data ``pretrain + epochs`` times. All but *joint* start from one shared backbone that
    has seen it ``pretrain`` times; *joint* starts from random weights, and *mixed* is what it is by that: the backbone
    first, then everything.

    Args:
        best: the best of the seven heads of 2106.15183.
        pretrain: epochs of the shared backbone.
        epochs: epochs of each way of training after it.
        seeds: how many times the heads are trained.
        small_depth: blocks of the static alternative.
    """
    fine = {"epochs": epochs, "learning_rate": 1e-3}
    whole = {"epochs": pretrain + epochs}
    found = [Run("backbone", _none, "backbone", start=None, settings={"epochs": pretrain})]
    found += [
        Run(f"heads-{seed}", all_heads, "frozen", settings={"epochs": epochs, "seed": seed}) for seed in range(seeds)
    ]
    for name in ("linear", "lgvit", best):
        exits = layout(name)
        found += [
            Run(f"{name}-frozen", exits, "frozen", settings={"epochs": epochs}),
            Run(f"{name}-joint", exits, "joint", start=None, settings=whole),
            Run(f"{name}-alternating-weighted", exits, "alternating-weighted", settings=fine),
            Run(f"{name}-mixed", exits, "joint", settings=fine),
            Run(f"{name}-self-distillation", exits, "self-distillation", settings=fine),
            Run(f"{name}-lgvit", exits, "lgvit", settings=fine),
        ]
    found += [
        Run("faithful", layout("lgvit"), "lgvit", {"faithful": True}, settings=fine),
        Run("recommended", layout("linear"), "self-distillation", {"weights": "final-doubled"}, None, whole),
        Run("static", _none, "backbone", start=None, settings=whole, depth=12),
        Run(f"static-{small_depth}", _none, "backbone", start=None, settings=whole, depth=small_depth),
    ]
    return found
