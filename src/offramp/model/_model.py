"""EarlyExitModel: a backbone with exits. It computes outputs and never decides anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from offramp._batches import Inputs, parts
from offramp.backbones import Backbone
from offramp.errors import UsageError
from offramp.heads import build_head
from offramp.inputs import Input
from offramp.registry import HEADS, unknown
from offramp.tasks import Task
from offramp.types import Exit


class EarlyExitModel(nn.Module):
    """A backbone in pieces, a head at every exit, and what is needed to read a file and to name an answer.

    Build it with ``attach``.

    Args:
        backbone: the cut model.
        exits: where heads stand, in the order of the blocks.
        heads: the modules that stand there.
        task: what an output means.
        model_input: what one sample is and how it becomes a tensor; ``model.input``.
        num_outputs: how many numbers of an exit's output are read.
        classes: the name of each class, where there are classes and names.
        final: the head in place of the backbone's own classifier and its module, where it was replaced.
    """

    def __init__(
        self,
        backbone: Backbone,
        exits: Sequence[Exit],
        heads: Sequence[nn.Module],
        task: Task,
        model_input: Input,
        num_outputs: int,
        classes: Sequence[str] | None = None,
        final: tuple[Exit, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_outputs = num_outputs
        """How many numbers decisions and tables read of an exit's output: the classes, or one."""
        self.exits = tuple(exits)
        self.heads = nn.ModuleList(heads)
        self.task = task
        self.input = model_input
        self.classes = None if classes is None else tuple(classes)
        self.final_exit = None if final is None else final[0]
        """What stands in place of the backbone's own classifier; None where that is the final exit."""
        self.classifier = None if final is None else final[1]
        self.grad_checkpointing = False
        """Whether blocks keep no activations for the way back; see ``set_grad_checkpointing``."""
        self.depth = len(backbone.steps)
        """The number of backbone blocks."""
        self.after = (*(block_of(e.after, backbone.names) for e in self.exits), self.depth)
        """The block that each exit reads, the final exit last."""
        self.segments = [range(a, b) for a, b in pairwise((0, *self.after))]
        """The blocks between two exits: segment ``k`` leads to exit ``k``, the last one to the final exit."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """The name of each exit's head, the final exit last."""
        return (*(e.head if isinstance(e.head, str) else _name(e.head) for e in self.exits), "final")

    def forward(self, x: Inputs) -> list[Tensor]:
        """All outputs for a batch, such as images ``(B, C, H, W)``: ``(B, num_outputs)`` for each exit, final last."""
        outputs = []
        h = self.stem(x)
        for k in range(len(self.exits)):
            h = self.step(k, h)
            outputs.append(self.head(k, h))
        return [*outputs, self.final(self.step(len(self.exits), h))]

    def stem(self, x: Inputs) -> Any:
        """A batch to the state before the first block. Raises ``DataError`` for samples of another shape."""
        self.input.check(x)
        return self.backbone.stem(parts(x)[0])

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k`` from the state before it."""
        for i in self.segments[k]:
            block = self.backbone.steps[i]
            again = self.grad_checkpointing and torch.is_grad_enabled()
            h = checkpoint(block, h, use_reentrant=False) if again else block(h)
        return h

    def head(self, k: int, h: Any) -> Tensor:
        """The output of exit ``k`` from the state that it reads."""
        tap = self.backbone.taps[self.after[k] - 1]
        return self.heads[k](self.backbone.tokens(h, tap))

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        if self.classifier is None:
            return self.backbone.final(h)
        return self.classifier(self.backbone.tokens(h, self.backbone.taps[-1]))

    @property
    def static(self) -> nn.Module:
        """The network without early exits: the timm model itself, unless its classifier was replaced."""
        whole: nn.Module = self.backbone.model
        return whole if self.classifier is None else _Static(self)

    @property
    def num_classes(self) -> int:
        """As timm calls ``num_outputs``."""
        return self.num_outputs

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm knows of the backbone's weights, with the input as it is here."""
        return {**self.backbone.model.pretrained_cfg, **self.input.pretrained_cfg()}

    def get_classifier(self) -> nn.Module:
        """The module that computes the final exit's output."""
        found: nn.Module = self.backbone.model.get_classifier() if self.classifier is None else self.classifier
        return found

    def reset_classifier(self, num_classes: int, classes: Sequence[str] | None = None) -> None:
        """New, untrained classifiers at every exit, the final one included, for another number of classes.

        Args:
            num_classes: how many.
            classes: their names.

        Raises:
            UsageError: another number of names, or a task that has no classes.
        """
        if not self.task.classes:
            raise UsageError(f"{self.task.name} has no classes")
        if classes is not None and len(classes) != num_classes:
            raise UsageError(f"{len(classes)} class names for {num_classes} classes")
        taps = self.backbone.taps
        like = next(self.parameters())
        for k, e in enumerate(self.exits):
            self.heads[k] = build_head(e, taps[self.after[k] - 1], num_classes).to(like.device, like.dtype)
        if self.final_exit is None:
            self.backbone.model.reset_classifier(num_classes)
            self.backbone.model.get_classifier().to(like.device, like.dtype)
        else:
            self.classifier = build_head(self.final_exit, taps[-1], num_classes).to(like.device, like.dtype)
        self.num_outputs, self.classes = num_classes, None if classes is None else tuple(classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether blocks compute their activations again on the way back, for less memory and more time.

        A batch norm sees its batch twice then.
        """
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """From the name of a parameter to its place, for timm's layer decay: a head stands with the block behind it."""
        inner = self.backbone.model
        layers = group_parameters(inner, inner.group_matcher(coarse=coarse), reverse=True)
        within = [[layers[n] for n in layers if n.startswith(f"{block}.")] for block in self.backbone.names]
        reached = [max(places, default=0) for places in within]

        def place(name: str) -> float:
            room, _, rest = name.partition(".")
            if room == "heads":
                return float(max(reached[: self.after[int(rest.partition(".")[0])]]))
            return float(layers.get(name.removeprefix("backbone.model."), max(layers.values())))

        return place

    def no_weight_decay(self) -> set[str]:
        """The parameters that weight decay must leave alone: those that timm names for the backbone."""
        named: set[str] = getattr(self.backbone.model, "no_weight_decay", set)()
        return {f"backbone.model.{name}" for name in named}


class _Static(nn.Module):
    """A model without its early exits."""

    def __init__(self, model: EarlyExitModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        h = self.model.stem(x)
        for k in range(len(self.model.segments)):
            h = self.model.step(k, h)
        return self.model.final(h)


def block_of(after: int | str, names: Sequence[str]) -> int:
    """The number of a block, from 1, by its number or the path of its module. Raises ``UsageError``."""
    if isinstance(after, int):
        return after
    if after not in names:
        raise UsageError(unknown("module to leave after", after, names))
    return names.index(after) + 1


def _name(head: Any) -> str:
    return HEADS.name_of(head) or str(getattr(head, "__name__", type(head).__name__))
