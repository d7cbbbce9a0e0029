"""What is trained: exits on one fine-tuned network, in every way that comes into question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.tails.plan import EXITS, SETTINGS, Field, Run

PASSES = 4
_WHOLE: dict[str, Any] = {**SETTINGS, "epochs": PASSES, "head_rate": 10.0}
_GENTLE: dict[str, Any] = {**_WHOLE, "learning_rate": 2e-5, "head_rate": 50.0}

WAYS: Mapping[str, tuple[str, Mapping[str, Any], bool]] = {
    "frozen": ("frozen", _WHOLE, False),
    "head-distillation": ("head-distillation", _WHOLE, False),
    "joint": ("joint", _WHOLE, False),
    "mixed": ("mixed", _WHOLE, False),
    "self-distillation": ("self-distillation", _WHOLE, False),
    "lgvit": ("lgvit", _WHOLE, False),
    "joint, gentle": ("joint", _GENTLE, True),
    "self-distillation, gentle": ("self-distillation", _GENTLE, True),
}
"""By name: the objective, its settings, and whether the fine-tuned network teaches. Heads learn at 0.001 in all of
them, the backbone at a tenth of that, or, gently, at a fiftieth, with the fine-tuned network as teacher."""


def base(place: Field) -> Run:
    """The fine-tuned network, as ``benchmarks.tails`` has it."""
    side = place.sides[-1]
    return Run(f"static{side}", side, objective="backbone")


def ways(place: Field) -> dict[str, Run]:
    """A run for each way, by its name."""
    start = base(place)
    return {
        name: Run(
            f"way-{name.replace(', ', '-')}",
            start.side,
            exits=EXITS,
            objective=objective,
            base=start.name,
            settings=settings,
            taught=taught,
        )
        for name, (objective, settings, taught) in WAYS.items()
    }
