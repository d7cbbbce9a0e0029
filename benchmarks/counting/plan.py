"""What is trained, and on which frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARGS: Mapping[str, Any] = {
    "output_stride": 8,
    "channels": [16, 32, 48, 64],
    "layers": [1, 1, 1, 1],
    "stem_type": "deep",
    "stem_width": 8,
}
SIZE = (3, 256, 144)
EXITS: Mapping[int, Mapping[str, Any]] = {2: {"widths": [32, 16]}, 3: {"widths": [32, 16]}}
"""Blocks after which exits stand, and the options of their heads."""
FINAL: Mapping[str, Any] = {"widths": [32, 16]}
TRAINING: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "warmup_epochs": 2,
    "ema": 0.99,
    "augment": {"scale": (0.3, 1.0), "ratio": (0.9, 1.1), "hflip": 0.5, "color_jitter": 0.3},
}
RULES = ("threshold", "expected-error")
MORE = (0.01, 0.03)
"""How much larger than its static MAE that of a policy may be, as a share, on validation frames."""
OFF, RISK = 3, 0.05
"""A promise is tried as well: more than so many heads off in at most that share of frames."""
LEVELS = (1, 2, 3)
"""Of GAME."""


@dataclass(frozen=True)
class Split:
    """Which frames are tested on.

    Args:
        name: what to call it.
        camera: the camera of the training frames; both if None.
        tested: the day that is tested on; the frames of the other camera if None.
        share: of the training frames, about, as whole days, that calibrate.
    """

    name: str
    camera: int | None
    tested: str | None
    share: float = 0.2


SPLITS = (
    Split("camera 1, tested on 2", 1, None),
    Split("camera 2, tested on 1", 2, None),
    Split("all days but one", None, "20170419"),
)
