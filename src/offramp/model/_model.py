"""EarlyExitModel: a backbone with exits. It computes outputs and never decides anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from offramp._batches import Inputs, count, parts
from offramp.backbones import Backbone, SideEncoder
from offramp.errors import UsageError
from offramp.heads import build_head
from offramp.inputs import Input
from offramp.model._places import on_paths
from offramp.paths import build_link, build_router, heads_for
from offramp.registry import HEADS
from offramp.tasks import Task
from offramp.types import Exit, Part, Tap, chain_of


class EarlyExitModel(nn.Module):
    """A backbone in pieces, a head at every exit, and what is needed to read a file and to name an answer.

    There may be several paths through the backbone's weights, each with exits and a classifier of its own; the exits of
    all of them form one chain, the cheapest path first. A model without paths has one. Build it with ``attach``.

    Args:
        paths: the cut model, and before it cheaper ways through it.
        exits: where heads stand, by the number of the block.
        task: what an output means.
        model_input: what one sample is and how it becomes a tensor; ``model.input``.
        num_outputs: how many numbers of an exit's output are read.
        classes: the name of each class, where there are classes and names.
        final: the head in place of the backbone's own classifier, where it is replaced.
        link: what a path takes over from the one before.
        router: what says where a sample enters, if anything does.
        share: whether an exit has one head for all paths where its weights allow it.
        path_parts: what the cheaper paths were made from.
        side: what encodes another modality, where exits read one. A batch then has three parts: what the backbone
            reads, the other modality, and whether that is there, above 0 where it is, ``(B, 1)``.
    """

    def __init__(
        self,
        paths: Sequence[Backbone],
        exits: Sequence[Exit],
        task: Task,
        model_input: Input,
        num_outputs: int,
        classes: Sequence[str] | None = None,
        final: Exit | None = None,
        link: Part | None = None,
        router: Part | None = None,
        share: bool = True,
        path_parts: Sequence[Part] = (),
        side: SideEncoder | None = None,
    ) -> None:
        super().__init__()
        self.side = side
        self.backbone = paths[-1]
        """The dearest path: the model as it was."""
        self.cheaper = nn.ModuleList(paths[:-1])  # type: ignore[arg-type]
        self.num_outputs = num_outputs
        """How many numbers decisions and tables read of an exit's output: the classes, or one."""
        self.placed = tuple(sorted(exits, key=lambda e: int(e.after)))
        """The exits as they were asked for, by depth; each stands on one path or on all."""
        self.task = task
        self.input = model_input
        self.classes = None if classes is None else tuple(classes)
        self.final_exit = final
        """What stands in place of the backbone's own classifier; None where that is the final exit."""
        self.path_parts = tuple(path_parts)
        self.link, self.router_part, self.share = link or Part("none"), router, share
        self.grad_checkpointing = False
        """Whether blocks keep no activations for the way back; see ``set_grad_checkpointing``."""
        self.depth = len(self.backbone.steps)
        """The number of backbone blocks."""
        chain = on_paths(self.placed, [len(path.steps) for path in paths])
        self._own = [own for _, own in chain]
        self.heads = nn.ModuleList()
        self.classifier: nn.Module | None = None
        self._build_heads()
        links = [build_link(self.link, before, after) for before, after in pairwise(paths)]
        self.links = nn.ModuleList([found for found in links if found is not None])  # type: ignore[misc]
        self.router: Any = None if router is None else build_router(router, model_input, paths)
        self._like_the_backbone(self.links, self.router, side)
        places = [place for place, _ in chain]
        after, on = [int(e.after) for e in places], [int(e.path or 0) for e in places]
        asked = [final if own is None else self.placed[own] for own in self._own]
        hear = [k for k, place in enumerate(asked) if place is not None and place.side is not None]
        self.chain = chain_of(after, on, len(self.links) > 0, hear)
        """Where the exits stand, the final exit last."""
        self.after = self.chain.after
        """The block of its path that each exit reads, the final exit last."""
        self.exits = tuple(replace(e, path=None) if len(paths) == 1 else e for e in places[:-1])
        """The early exits of the chain; the classifier of a path before the last is one, and is called ``final``."""
        self.segments = [range(0)] * len(places)
        """For each exit the blocks that lead to it from the one before on its path, or from where the path begins."""
        for path, (start, end) in enumerate(zip(self.chain.starts, self.chain.ends, strict=True)):
            first = 0 if path or self.router is None else self.router.after
            bounds = (first, *self.after[start : end + 1])
            self.segments[start : end + 1] = [range(a, b) for a, b in pairwise(bounds)]

    @property
    def paths(self) -> tuple[Backbone, ...]:
        """All ways through the weights, the cheapest first, the backbone itself last."""
        return (*self.cheaper, self.backbone)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The name of each exit's head, with the fusion where it has one; a path's own classifier is ``final``."""
        names = (e.head if isinstance(e.head, str) else _name(e.head) for e in self.exits)
        return (*(n if e.side is None else f"{n}+{e.side}" for n, e in zip(names, self.exits, strict=True)), "final")

    def tap(self, k: int) -> Tap:
        """Where exit ``k`` reads."""
        return self.paths[self.chain.paths[k]].taps[self.after[k] - 1]

    def forward(self, x: Inputs, entry: int = 0) -> list[Tensor]:
        """All outputs for a batch, such as images ``(B, C, H, W)``: ``(B, num_outputs)`` for each exit, final last.

        Args:
            x: a batch as the model's input prepares it.
            entry: the path where all samples enter; the exits of those before it are left out.
        """
        return [self.head(k, h) for k, h in self.states(x, entry)]

    def states(self, x: Inputs, entry: int = 0) -> Iterator[tuple[int, Any]]:
        """The chain's exits from that path on, each by its index, with the state that it reads."""
        h, heard = None, self.chain.heard(range(len(self.after)))
        for k in range(self.chain.starts[entry], len(self.after)):
            if k in self.chain.starts:
                h = self.enter(self.chain.paths[k], x, h)
            h = self.step(k, h)
            if k == heard:
                h = self.hear(h)
            yield k, h

    def enter(self, path: int, x: Inputs, h: Any = None) -> Any:
        """A batch to the state before a path's first segment. Raises ``DataError`` for samples of another shape.

        Args:
            path: the number of the path.
            x: the batch.
            h: the last state of the path before, of the first samples of the batch; None where nobody comes from there.
        """
        self.input.check(x)
        own, *other = parts(x)
        state = self.paths[path].stem(own)
        if self.side is not None:
            given, there = other
            return state, (given, there, given.new_zeros(given.shape[0], 1, self.side.width))
        if path == 0 and self.router is not None:
            for i in range(self.router.after):
                state = self.paths[0].steps[i](state)
        if h is None or not self.links:
            return state
        return _added(state, self.taken_over(path, h))

    def taken_over(self, path: int, h: Any) -> Tensor:
        """What a path adds to its first tokens for samples that come from the one before, in the state ``h``."""
        before = self.paths[path - 1]
        added: Tensor = self.links[path - 1](before.tokens(h, before.taps[-1]))
        return added

    def route(self, x: Inputs) -> tuple[Tensor, Any]:
        """What the router says, float32 ``(B, paths)``, and the cheapest path's first state where it read that.

        A model without a router says nothing: zeros.
        """
        if self.router is None:
            return torch.zeros(count(x), self.chain.num_paths, device=parts(x)[0].device), None
        h = self.enter(0, x) if self.router.after else None
        return self.router(parts(x)[0], h).float(), h

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k`` from the state before it."""
        steps = self.paths[self.chain.paths[k]].steps
        h, *other = (h,) if self.side is None else h
        for i in self.segments[k]:
            again = self.grad_checkpointing and torch.is_grad_enabled()
            h = checkpoint(steps[i], h, use_reentrant=False) if again else steps[i](h)
        return (h, *other) if other else h

    def hear(self, h: Any) -> Any:
        """The state with the other modality encoded, for the exits from here on that read it."""
        assert self.side is not None
        own, (given, there, _) = h
        return own, (given, there, self.side(given, there))

    def head(self, k: int, h: Any) -> Tensor:
        """The output of exit ``k`` from the state that it reads."""
        path, head = self.paths[self.chain.paths[k]], self.module_of(k)
        if head is None:
            return path.final(h if self.side is None else h[0])
        if k not in self.chain.side:
            return head(self.tokens(k, h))
        _, there, encoded = h[1]
        return head(self.tokens(k, h), (encoded, there))

    def tokens(self, k: int, h: Any) -> Tensor:
        """What exit ``k`` reads of the backbone in the state that it stands at, ``(B, prefix + h·w, dim)``."""
        return self.paths[self.chain.paths[k]].tokens(h if self.side is None else h[0], self.tap(k))

    def module_of(self, k: int) -> nn.Module | None:
        """The head of exit ``k``; None where the backbone's own classifier answers."""
        own = self._own[k]
        return self.classifier if own is None else self.heads[self._of_exit[own][self.chain.paths[k]]]

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        return self.head(len(self.exits), h)

    @property
    def static(self) -> nn.Module:
        """The network without early exits: the timm model itself, unless its classifier or its input is another."""
        whole: nn.Module = self.backbone.model
        return whole if self.classifier is None and len(self.input.shapes) == 1 else _Static(self)

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
        self.num_outputs, self.classes = num_classes, None if classes is None else tuple(classes)
        if self.final_exit is None:
            self.backbone.model.reset_classifier(num_classes)
            self._like_the_backbone(self.backbone.model.get_classifier())
        self._build_heads()
        self.read_backbone()

    def _build_heads(self) -> None:
        """New heads; ``_of_exit`` says which of them an exit has on each path."""
        paths, outputs = self.paths, self.num_outputs
        width = 0 if self.side is None else self.side.width

        def build(place: Exit, on: Sequence[int]) -> tuple[list[nn.Module], list[int]]:
            taps = [paths[path].taps[int(place.after) - 1] for path in on]
            return heads_for(lambda tap: build_head(place, tap, outputs, width), taps, self.share)

        heads: list[nn.Module] = []
        self._of_exit: list[dict[int, int]] = []
        for place in self.placed:
            on = [place.path] if place.path is not None else list(range(len(paths)))
            found, index = build(place, on)
            self._of_exit.append({path: len(heads) + i for path, i in zip(on, index, strict=True)})
            heads += found
        self.heads = nn.ModuleList(heads)
        if self.final_exit is not None:
            found, index = build(self.final_exit, range(len(paths)))
            if len(found) > 1:
                raise UsageError(
                    f"head {self.final_exit.head!r} is bound to its grid and cannot answer on several paths"
                )
            self.classifier = found[0]
        self._like_the_backbone(self.heads, self.classifier)

    def read_backbone(self) -> None:
        """Let heads that copy something of the backbone (``lens``) copy it; ``attach`` and training do so.

        Raises:
            UsageError: a backbone on which such a head cannot stand.
        """
        for head in self.heads.modules():  # a head may stand inside what brings another modality to it
            read: Any = getattr(head, "read_backbone", None)
            if read is not None:
                read(self.backbone.model)

    def _like_the_backbone(self, *modules: Any) -> None:
        """Put new modules where the backbone is, in its type, and in the model's mode."""
        like = next(self.backbone.model.parameters())
        for module in modules:
            if module is not None:
                module.to(like.device, like.dtype).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether blocks compute their activations again on the way back, for less memory and more time.

        A batch norm sees its batch twice then.
        """
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """From the name of a parameter to its place, for timm's layer decay: a head stands with the block behind it.

        Stems of paths stand with the backbone's own; links, routers and a side encoder with the classifier.
        """
        inner = self.backbone.model
        layers = group_parameters(inner, inner.group_matcher(coarse=coarse), reverse=True)
        within = [[layers[n] for n in layers if n.startswith(f"{block}.")] for block in self.backbone.names]
        reached = [max(places, default=0) for places in within]
        reads = [int(self.placed[i].after) for i, on in enumerate(self._of_exit) for _ in {*on.values()}]

        def place(name: str) -> float:
            room, _, rest = name.partition(".")
            if room == "heads":
                return float(max(reached[: reads[int(rest.partition(".")[0])]]))
            if room == "cheaper":
                return 0.0
            return float(layers.get(name.removeprefix("backbone.model."), max(layers.values())))

        return place

    def no_weight_decay(self) -> set[str]:
        """The parameters that weight decay must leave alone: those that timm names for the backbone, on every path."""
        named: set[str] = getattr(self.backbone.model, "no_weight_decay", set)()
        elsewhere = {
            name for name, _ in self.cheaper.named_parameters() if name.split(".")[1] in ("pos_embed", "offset")
        }
        return {f"backbone.model.{name}" for name in named} | {f"cheaper.{name}" for name in elsewhere}


class _Static(nn.Module):
    """A model without its early exits."""

    def __init__(self, model: EarlyExitModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Inputs) -> Tensor:
        model = self.model
        h = model.enter(model.chain.num_paths - 1, x)
        for k in range(model.chain.starts[-1], len(model.after)):
            h = model.step(k, h)
        return model.final(h if model.chain.heard(()) is None else model.hear(h))


def _added(state: Tensor, more: Tensor) -> Tensor:
    """``more`` added to the first rows."""
    n = len(more)
    return state + more if n == len(state) else torch.cat([state[:n] + more, state[n:]])


def _name(head: Any) -> str:
    return HEADS.name_of(head) or str(getattr(head, "__name__", type(head).__name__))
