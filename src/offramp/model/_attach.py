"""Giving a timm model exits, and paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from offramp.backbones import Backbone, SideEncoder, cut, input_size
from offramp.errors import UsageError
from offramp.inputs import ImageInput, Input
from offramp.model._model import EarlyExitModel
from offramp.model._modes import evaluating
from offramp.model._places import FINAL, block_of, check_places
from offramp.paths import build_path
from offramp.registry import HEADS, LINKS, PATHS, ROUTERS, Table
from offramp.tasks import Task, get_task
from offramp.types import Exit, Part


def attach(
    model: Any,
    exits: Sequence[Exit] = (),
    task: str | Task = "classification",
    classes: Sequence[str] | None = None,
    model_input: Input | None = None,
    final: str | Callable[..., nn.Module] | Exit | None = None,
    num_outputs: int | None = None,
    *,
    tails: Sequence[int] = (),
    paths: Sequence[Part] = (),
    link: str | Part = "none",
    router: str | Part | None = None,
    shared_heads: bool = True,
    side: Any = None,
) -> EarlyExitModel:
    """Give a timm model early exits, and several paths through its weights.

    The model is held, not copied or changed: its own classifier stays the final exit, unless ``final`` replaces it.

    Args:
        model: what ``timm.create_model`` returned.
        exits: where to put which head, by block number or module path; any order, the model keeps them by depth.
            Several heads after one block are for comparing them; a policy uses the ones that it needs.
        task: a name from ``offramp list tasks``, or a ``Task``.
        classes: the name of each class.
        model_input: what one sample is; an image as timm's data configuration of the model has it if not given.
        final: a head to stand behind the last block in place of the backbone's own classifier, as another task needs;
            an ``Exit`` after the last block where the head has options.
        num_outputs: the number of classes where ``final`` is given; the named ones, or else the backbone's, if not
            given. A task without classes has one output.
        tails: rows of tokens of every path (MT-ViT, 2203.01587); the largest is the backbone's own. Short for
            ``paths`` of ``Part("tail", {"grid": …})``.
        paths: cheaper ways through the backbone, the cheapest first; the backbone itself is the last path and is not
            named.
        link: what a path takes over from the one before, from ``offramp list links``.
        router: what says at which path a sample enters, from ``offramp list routers``.
        shared_heads: whether an exit has one head for all paths where its weights allow it; one for each if not.
        side: a timm model without classifier (``num_classes=0``) that encodes another modality, for the exits that say
            how they read it (``Exit.side``). The input then makes samples of both, such as ``PairInput``; the other
            modality is encoded once, where the policy first asks an exit that reads it (2105.09121).

    Raises:
        UsageError: a model that cannot be cut; an exit out of range, doubled, or after the last block; an unknown head;
            an input of another size than the model reads, or one of crops for a task with classes; tails that do not
            fit; exits that read another modality without ``side``, ``side`` with none that does, or with several paths.
    """
    backbone = cut(model)
    parts = [_part(part, PATHS) for part in (*paths, *_tails(tails, backbone))]
    ways: list[Backbone] = [*(build_path(part, backbone) for part in parts), backbone]
    depth = len(backbone.steps)
    placed = [_placed(e, backbone.names, len(ways)) for e in exits]
    check_places(sorted(placed, key=lambda e: int(e.after)), [len(path.steps) for path in ways])
    meaning = get_task(task)
    if final is None:
        outputs = model.num_classes
        if num_outputs not in (None, outputs):
            raise UsageError(f"the backbone's classifier has {outputs} outputs, not {num_outputs}: replace it by final")
    elif num_outputs is not None:
        outputs = num_outputs
    else:
        outputs = (model.num_classes if classes is None else len(classes)) if meaning.classes else 1
    if classes is not None and len(classes) != outputs:
        raise UsageError(f"{len(classes)} class names for a model with {outputs} outputs")
    if len(ways) == 1 and (router is not None or _part(link, LINKS).name != "none"):
        raise UsageError("a router or a link needs more than one path: name tails, or paths")
    last = None if final is None else _last(final, depth)
    encoder = None if side is None else SideEncoder(side)
    if encoder is not None:
        _check_side([*placed, *([] if last is None else [last])], len(ways))
    reads = _fitting(model_input, model, encoder)
    if meaning.classes and reads.crops != (1, 1):
        raise UsageError(
            f"the answers of crops are summed, and {meaning.name} has classes: take 'counting' or 'density'"
        )
    made = EarlyExitModel(
        ways,
        placed,
        meaning,
        reads,
        outputs,
        classes,
        last,
        _part(link, LINKS),
        None if router is None else _part(router, ROUTERS),
        shared_heads,
        parts,
        encoder,
    )
    made.read_backbone()
    _check_router(made)
    _check_answers(made)
    return made


def _tails(grids: Sequence[int], backbone: Backbone) -> list[Part]:
    """The paths that lead to the backbone's own. Raises ``UsageError`` for tails that do not fit it."""
    if not grids:
        return []
    own = backbone.taps[0].grid[0]
    said = f"tails {list(grids)}"
    if doubled := {grid for grid in grids if list(grids).count(grid) > 1}:
        raise UsageError(f"{said}: {min(doubled)} stands there twice")
    parts = [Part("tail", {"grid": grid}) for grid in sorted(grids) if grid != own]
    for part in parts:
        build_path(part, backbone)
    if own not in grids:
        raise UsageError(f"{said} leave out {own}, the backbone's own, which is the longest")
    return parts


def _placed(place: Exit, names: Sequence[str], paths: int) -> Exit:
    """An exit by the number of its block and path and, where its head has one, by name: equal ones look equal."""
    path = place.path if place.path is None or place.path >= 0 else place.path + paths
    after = block_of(place.after, names)
    return replace(place, after=after, head=HEADS.name_of(place.head) or place.head, path=path)


def _part(given: str | Part, table: Table) -> Part:
    """A part, by name where the table has one for it."""
    part = given if isinstance(given, Part) else Part(given)
    return replace(part, name=table.name_of(part.name) or part.name)


def _last(final: str | Callable[..., nn.Module] | Exit, depth: int) -> Exit:
    found = final if isinstance(final, Exit) else Exit(depth, final)
    if found.after != depth:
        raise UsageError(f"final stands after the last block, {depth}, not after {found.after}")
    return _placed(found, (), 1)


def _check_side(places: Sequence[Exit], paths: int) -> None:
    """Raise ``UsageError`` where a side encoder is of no use, or its tokens would go to several paths."""
    if all(place.side is None for place in places):
        raise UsageError("no exit reads the side encoder: give one a side, 'append' or 'film'")
    if paths > 1:
        raise UsageError(f"a model with a side encoder has one path, and this one has {paths}")


def _check_router(model: EarlyExitModel) -> None:
    """Raise ``UsageError`` where a router stands behind the first exit of the path that it reads."""
    first = model.after[0]
    if model.router is not None and model.router.after > first:
        raise UsageError(
            f"the router stands after block {model.router.after}, behind the first exit, after block {first}"
        )


def _check_answers(model: EarlyExitModel) -> None:
    """Raise ``UsageError`` for a head whose answer is not what the task reads; it is tried on a blank sample."""
    with evaluating(model), torch.no_grad():
        for k, name in enumerate(model.head_names):
            head, tap = model.module_of(k), model.tap(k)
            if head is None:
                continue
            like = next(head.parameters(), torch.zeros(()))
            side = []
            if k in model.chain.side and model.side is not None:
                side = [(like.new_zeros(1, 1, model.side.width), like.new_ones(1, 1))]
            found = tuple(head(like.new_zeros(1, tap.tokens, tap.dim), *side).shape[1:])
            if found != (wanted := model.task.shape(tap, model.num_outputs)):
                asked = name if name != FINAL or model.final_exit is None else model.final_exit.head
                raise UsageError(
                    f"head {asked!r} after block {tap.after} answers {found}; {model.task.name} reads {wanted}"
                )


def _fitting(given: Input | None, model: Any, side: SideEncoder | None) -> Input:
    """The input of a model: the given one, if it makes what the model and its side encoder were built for."""
    size = input_size(model)
    if given is None and side is None:
        return ImageInput.for_backbone(model, size)
    if given is None:
        raise UsageError("a model with a side encoder needs an input that makes both, such as PairInput")
    made, *others = given.shapes.values()
    if made != size:
        raise UsageError(f"an input that makes {made} for a model that reads {size} (channels, height, width)")
    if side is not None and others != [side.input_size, (1,)]:
        raise UsageError(
            f"an input that makes {others or 'nothing else'} for a side encoder that reads {side.input_size}, and (1,) "
            "for whether there is something to read"
        )
    return given
