"""What is trained, and on which pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPEAKERS = (("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler"))
"""For each seed who is tested on, and on whom is calibrated; the four others are trained on."""
ENERGY = 0.25
"""Of the variance of the pictures, what degrading leaves."""
PAIRS = {"train": 12_000, "validation": 4_000}
"""Pictures of MNIST's training part; all of its test part are tested on."""

SIGHT: Mapping[str, Any] = {
    "img_size": 28,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 64,
    "depth": 6,
    "num_heads": 4,
}
SOUND: Mapping[str, Any] = {
    "in_chans": 1,
    "stem_type": "deep",
    "stem_width": 8,
    "channels": [16, 48, 96, 192],
    "layers": [1, 2, 2, 2],
}
CLIPS: Mapping[str, Any] = {"input_size": (1, 40, 51), "sample_rate": 8000, "n_fft": 256, "f_max": 4000.0}
PLACES = (1, 2, 4)
"""Blocks of the ViT after which two exits stand each, one for sight and one for both; both are heard at its end."""
HEAD = "sl-vit"
FUSION = "append"

_SOUND_AUGMENT = {
    "shift": 0.1,
    "speeds": [0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2],
    "noise": [5, 30],
    "bands": 8,
    "frames": 10,
    "stripes": 2,
}
HEARING: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 64,
    "learning_rate": 0.002,
    "weight_decay": 0.05,
    "warmup_epochs": 2,
    "ema": 0.99,
    "label_smoothing": 0.1,
    "augment": _SOUND_AUGMENT,
    "mixing": {"mixup_alpha": 0.4, "prob": 0.5},
    "mixing_epochs": 24,
}
BOTH: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 0.001,
    "weight_decay": 0.05,
    "warmup_epochs": 0.5,
    "ema": 0.99,
    "label_smoothing": 0.1,
    "augment": {"sound": _SOUND_AUGMENT, "missing": 0.25},
}
MAX_DROP = 0.005
