"""EarlyExitModel: a backbone with exits. It computes outputs and never decides anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import timm.data
from torch import Tensor, nn

from offramp.backbones import Backbone, cut
from offramp.errors import DataError, UsageError
from offramp.heads import build_head
from offramp.registry import HEADS
from offramp.tasks import Task, get_task
from offramp.types import Exit


class EarlyExitModel(nn.Module):
    """A backbone in pieces, a head at every exit, and what is needed to read an image and to name an answer.

    Build it with ``attach``.

    Args:
        backbone: the cut model.
        exits: where heads stand, in the order of the blocks.
        heads: the modules that stand there.
        task: what an output means.
        data_config: timm's data configuration: input size, interpolation, mean, standard deviation, crop.
        classes: the name of each class, where there are classes and names.
    """

    def __init__(
        self,
        backbone: Backbone,
        exits: Sequence[Exit],
        heads: Sequence[nn.Module],
        task: Task,
        data_config: dict[str, Any],
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.exits = tuple(exits)
        self.heads = nn.ModuleList(heads)
        self.task = task
        self.data_config = data_config
        self.classes = None if classes is None else tuple(classes)
        ends = [0, *(e.after for e in self.exits), len(backbone.steps)]
        self.segments = [range(a, b) for a, b in pairwise(ends)]
        """The blocks between two exits: segment ``k`` leads to exit ``k``, the last one to the final exit."""

    @property
    def depth(self) -> int:
        """The number of backbone blocks."""
        return len(self.backbone.steps)

    @property
    def num_outputs(self) -> int:
        """The number of outputs of every exit."""
        return int(self.backbone.model.num_classes)

    @property
    def after(self) -> tuple[int, ...]:
        """The block that each exit reads, the final exit last."""
        return (*(e.after for e in self.exits), self.depth)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The name of each exit's head, the final exit last."""
        return (*(e.head if isinstance(e.head, str) else _name(e.head) for e in self.exits), "final")

    def forward(self, x: Tensor) -> list[Tensor]:
        """All outputs for images ``(B, C, H, W)``: a list of ``(B, num_outputs)``, exits in order, final exit last."""
        outputs = []
        h = self.stem(x)
        for k in range(len(self.exits)):
            h = self.step(k, h)
            outputs.append(self.head(k, h))
        return [*outputs, self.final(self.step(len(self.exits), h))]

    def stem(self, x: Tensor) -> Tensor:
        """Images to the state before the first block. Raises ``DataError`` for images of another shape."""
        self.check_input(x)
        return self.backbone.stem(x)

    def step(self, k: int, h: Tensor) -> Tensor:
        """The state after segment ``k`` from the state before it."""
        for i in self.segments[k]:
            h = self.backbone.steps[i](h)
        return h

    def head(self, k: int, h: Tensor) -> Tensor:
        """The output of exit ``k`` from the state that it reads."""
        tap = self.backbone.taps[self.exits[k].after - 1]
        return self.heads[k](self.backbone.tokens(h, tap))

    def final(self, h: Tensor) -> Tensor:
        """The output of the final exit."""
        return self.backbone.final(h)

    def check_input(self, x: Tensor) -> None:
        """Raise ``DataError`` unless ``x`` has the shape the backbone was built for."""
        expected = tuple(self.data_config["input_size"])
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise DataError(
                f"the model takes images of shape (batch, {', '.join(map(str, expected))}), these are {tuple(x.shape)}"
            )

    def no_weight_decay(self) -> set[str]:
        """The parameters that weight decay must leave alone: those that timm names for the backbone."""
        named: set[str] = getattr(self.backbone.model, "no_weight_decay", set)()
        return {f"backbone.model.{name}" for name in named}


def attach(
    model: Any,
    exits: Sequence[Exit],
    task: str | Task = "classification",
    classes: Sequence[str] | None = None,
) -> EarlyExitModel:
    """Give a timm model early exits.

    The model is held, not copied or changed: its own classifier stays the final exit.

    Args:
        model: what ``timm.create_model`` returned.
        exits: where to put which head; any order, the model keeps them by depth.
        task: a name from ``offramp list tasks``, or a ``Task``.
        classes: the name of each class.

    Raises:
        UsageError: a model that cannot be cut; an exit out of range, doubled, or after the last block; an unknown head.
    """
    backbone = cut(model)
    depth = len(backbone.steps)
    exits = sorted(exits, key=lambda e: e.after)
    seen: set[int] = set()
    for e in exits:
        if not 1 <= e.after < depth:
            raise UsageError(
                f"exit after block {e.after}: this backbone has {depth} blocks, and exits stand after blocks 1 to "
                f"{depth - 1} (after block {depth} its own classifier is the final exit)"
            )
        if e.after in seen:
            raise UsageError(f"two exits after block {e.after}: one block has one exit")
        seen.add(e.after)
    if classes is not None and len(classes) != model.num_classes:
        raise UsageError(f"{len(classes)} class names for a model with {model.num_classes} outputs")
    heads = [build_head(e, backbone.taps[e.after - 1], model.num_classes) for e in exits]
    return EarlyExitModel(backbone, exits, heads, get_task(task), _data_config(model), classes)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode again outside."""
    training = [m for m in model.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


def _data_config(model: Any) -> dict[str, Any]:
    """timm's data configuration with the size and channels that this model was really built for."""
    config = dict(timm.data.resolve_model_data_config(model))
    channels, height, width = config["input_size"]
    if (size := getattr(getattr(model, "patch_embed", None), "img_size", None)) is not None:
        height, width = size
    channels = getattr(model, "in_chans", channels)
    config["input_size"] = (channels, height, width)
    for key in ("mean", "std"):  # those of three colours, for a model that was built for another number of channels
        if len(config[key]) != channels:
            config[key] = (sum(config[key]) / len(config[key]),) * channels
    return config


def _name(head: Any) -> str:
    return HEADS.name_of(head) or str(getattr(head, "__name__", type(head).__name__))
