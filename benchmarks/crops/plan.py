"""What is trained, and where exits stand."""

from __future__ import annotations

from typing import Any

BACKBONE, SIDE, GRID = "vit_tiny_patch16_224", 96, (3, 2)
PLACES = (3, 6, 9)
STEPS = 900
"""Of every kind of head."""
SPEEDUP = 1.5
"""Of multiply-adds, which policies are asked for."""
TRAINING: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 32,
    "learning_rate": 3e-4,
    "layer_decay": 0.8,
    "weight_decay": 0.05,
    "warmup_epochs": 1,
    "ema": 0.99,
    "augment": {"scale": (0.6, 1.0), "ratio": (0.9, 1.1), "hflip": 0.5, "color_jitter": 0.3},
}
