"""A recipe from the command line, for the commonest case: exits for a timm model on one's own data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from offramp.errors import DataError, UsageError
from offramp.recipe import Recipe, check_recipe

_LEARNED: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "head_rate": 10.0,
    "warmup_epochs": 0.5,
}
_RANDOM: dict[str, Any] = {"epochs": 40, "batch_size": 128, "learning_rate": 1e-3, "warmup_epochs": 2}
_AUGMENT = {"scale": [0.35, 1.0], "hflip": 0.5, "auto_augment": "rand-m7-mstd0.5-inc1", "color_jitter": None}


def plain_recipe(
    source: str,
    backbone: str,
    exits: str,
    out: Path,
    pretrained: bool = False,
    checkpoint: Path | None = None,
    epochs: int | None = None,
) -> Recipe:
    """A recipe for a backbone and some exits, and a file of it beside the model.

    A backbone that has learned before is fine-tuned, and its exits learn on what it has become; one from random weights
    learns with its exits. Early exits have local heads, the last early one a global head, as LGViT has them
    (2308.00255). The same words find the same file, and a run that was stopped goes on.

    Args:
        source: where samples come from.
        backbone: a name of timm's.
        exits: blocks after which they stand, with commas between them.
        out: where the model goes; the recipe goes to ``OUT.yaml``.
        pretrained: whether timm's weights are the first.
        checkpoint: a file of first weights.
        epochs: how many, if not the usual ones.

    Raises:
        UsageError: exits that are no numbers, an unknown backbone, or a run that began with another ``OUT.yaml``.
        DataError: it cannot be written.
    """
    after = _blocks(exits)
    learned = pretrained or checkpoint is not None
    heads = ["lph"] * (len(after) - 1) + ["gah"]
    values: dict[str, Any] = {
        "name": out.name,
        "data": {"source": source, "validation": 0.1},
        "backbone": {"name": backbone, "pretrained": pretrained},
        "exits": [{"after": block, "head": head} for block, head in zip(after, heads, strict=True)],
        "objective": {"name": "fine-tune"}
        if learned
        else {"name": "self-distillation", "options": {"weights": "final-doubled"}},
        "training": {**(_LEARNED if learned else _RANDOM), "augment": _AUGMENT},
        "goal": {"max_drop": 0.005},
    }
    if checkpoint is not None:
        values["backbone"]["checkpoint"] = str(checkpoint)
    if epochs is not None:
        values["training"] = {**values["training"], "epochs": epochs}
    recipe = check_recipe(values, "the command")
    file = out.with_name(out.name + ".yaml")
    text = f"# again: {shlex.join(['offramp', 'train', str(file), '--out', str(out)])}\n"
    text += yaml.safe_dump(values, sort_keys=False)
    try:
        begun = out.exists() or out.with_name(out.name + ".run").exists()
        if begun and file.exists() and file.read_text() != text:
            raise UsageError(f"{file} is there and says something else: train that recipe, or choose another --out")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        raise DataError(f"{file} could not be written: {error}") from error
    return recipe


def _blocks(text: str) -> list[int]:
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise UsageError(f"--exits takes numbers of blocks with commas between them, not {text!r}") from None
    return found
