"""EarlyExitModel: a backbone with exits. It computes outputs and never decides anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import timm.data
from torch import Tensor, nn

from offramp.backbones import Backbone, cut, input_size
from offramp.errors import DataError, UsageError
from offramp.heads import build_head
from offramp.registry import HEADS, unknown
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
        self.depth = len(backbone.steps)
        """The number of backbone blocks."""
        self.after = (*(_block(e.after, backbone.names) for e in self.exits), self.depth)
        """The block that each exit reads, the final exit last."""
        self.segments = [range(a, b) for a, b in pairwise((0, *self.after))]
        """The blocks between two exits: segment ``k`` leads to exit ``k``, the last one to the final exit."""

    @property
    def num_outputs(self) -> int:
        """The number of outputs of every exit."""
        return int(self.backbone.model.num_classes)

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

    def stem(self, x: Tensor) -> Any:
        """Images to the state before the first block. Raises ``DataError`` for images of another shape."""
        self.check_input(x)
        return self.backbone.stem(x)

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k`` from the state before it."""
        for i in self.segments[k]:
            h = self.backbone.steps[i](h)
        return h

    def head(self, k: int, h: Any) -> Tensor:
        """The output of exit ``k`` from the state that it reads."""
        tap = self.backbone.taps[self.after[k] - 1]
        return self.heads[k](self.backbone.tokens(h, tap))

    def final(self, h: Any) -> Tensor:
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
        exits: where to put which head, by block number or module path; any order, the model keeps them by depth.
            Several heads after one block are for comparing them; a policy uses the ones that it needs.
        task: a name from ``offramp list tasks``, or a ``Task``.
        classes: the name of each class.

    Raises:
        UsageError: a model that cannot be cut; an exit out of range, doubled, or after the last block; an unknown head.
    """
    backbone = cut(model)
    depth = len(backbone.steps)
    places = sorted((_block(e.after, backbone.names), i) for i, e in enumerate(exits))
    for after, _ in places:
        if not 1 <= after < depth:
            raise UsageError(
                f"exit after block {after}: this backbone has {depth} blocks, and exits stand after blocks 1 to "
                f"{depth - 1} (after block {depth} its own classifier is the final exit)"
            )
    placed = [_named(exits[i], after) for after, i in places]
    for first, second in combinations(placed, 2):
        if first == second:
            raise UsageError(f"two exits after block {first.after} with the same head")
    if classes is not None and len(classes) != model.num_classes:
        raise UsageError(f"{len(classes)} class names for a model with {model.num_classes} outputs")
    like = next(model.parameters())  # heads live where the backbone does, in its type
    heads = [
        build_head(e, backbone.taps[int(e.after) - 1], model.num_classes).to(like.device, like.dtype) for e in placed
    ]
    return EarlyExitModel(backbone, placed, heads, get_task(task), _data_config(model), classes)


def _named(exit: Exit, after: int) -> Exit:
    """An exit by the number of its block and, where its head has one, by name: equal ones look equal."""
    return replace(exit, after=after, head=HEADS.name_of(exit.head) or exit.head)


def _block(after: int | str, names: Sequence[str]) -> int:
    if isinstance(after, int):
        return after
    if after not in names:
        raise UsageError(unknown("module to leave after", after, names))
    return names.index(after) + 1


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
    config["input_size"] = input_size(model)
    channels = config["input_size"][0]
    for key in ("mean", "std"):  # those of three colours, for a model that was built for another number of channels
        if len(config[key]) != channels:
            config[key] = (sum(config[key]) / len(config[key]),) * channels
    return config


def _name(head: Any) -> str:
    return HEADS.name_of(head) or str(getattr(head, "__name__", type(head).__name__))
