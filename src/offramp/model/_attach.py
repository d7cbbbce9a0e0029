"""Giving a timm model exits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

from offramp.backbones import cut, input_size
from offramp.errors import UsageError
from offramp.heads import build_head
from offramp.inputs import ImageInput, Input
from offramp.model._model import EarlyExitModel, block_of
from offramp.model._modes import evaluating
from offramp.registry import HEADS
from offramp.tasks import Task, get_task
from offramp.types import Exit, Tap


def attach(
    model: Any,
    exits: Sequence[Exit],
    task: str | Task = "classification",
    classes: Sequence[str] | None = None,
    model_input: Input | None = None,
    final: str | Callable[..., nn.Module] | Exit | None = None,
    num_outputs: int | None = None,
) -> EarlyExitModel:
    """Give a timm model early exits.

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

    Raises:
        UsageError: a model that cannot be cut; an exit out of range, doubled, or after the last block; an unknown head;
            an input of another size than the model reads.
    """
    backbone = cut(model)
    depth = len(backbone.steps)
    places = sorted((block_of(e.after, backbone.names), i) for i, e in enumerate(exits))
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
    like = next(model.parameters())  # heads live where the backbone does, in its type

    def built(e: Exit) -> nn.Module:
        tap = backbone.taps[int(e.after) - 1]
        head = build_head(e, tap, outputs).to(like.device, like.dtype)
        _check_answers(head, e, tap, meaning, outputs)
        return head

    last = None if final is None else _last(final, depth)
    return EarlyExitModel(
        backbone,
        placed,
        [built(e) for e in placed],
        meaning,
        _fitting(model_input, model),
        outputs,
        classes,
        None if last is None else (last, built(last)),
    )


def _last(final: str | Callable[..., nn.Module] | Exit, depth: int) -> Exit:
    found = final if isinstance(final, Exit) else Exit(depth, final)
    if found.after != depth:
        raise UsageError(f"final stands after the last block, {depth}, not after {found.after}")
    return _named(found, depth)


def _check_answers(head: nn.Module, place: Exit, tap: Tap, task: Task, num_outputs: int) -> None:
    """Raise ``UsageError`` for a head whose answer is not what the task reads; it is tried on a blank sample."""
    with evaluating(head), torch.no_grad():
        like = next(head.parameters(), torch.zeros(()))
        found = tuple(head(like.new_zeros(1, tap.tokens, tap.dim)).shape[1:])
    if found != (wanted := task.shape(tap, num_outputs)):
        raise UsageError(f"head {place.head!r} after block {place.after} answers {found}; {task.name} reads {wanted}")


def _fitting(given: Input | None, model: Any) -> Input:
    """The input of a model: the given one, if it makes what the model was built for."""
    size = input_size(model)
    if given is None:
        return ImageInput.for_backbone(model, size)
    made = next(iter(given.shapes.values()))
    if made != size:
        raise UsageError(f"an input that makes {made} for a model that reads {size} (channels, height, width)")
    return given


def _named(place: Exit, after: int) -> Exit:
    """An exit by the number of its block and, where its head has one, by name: equal ones look equal."""
    return replace(place, after=after, head=HEADS.name_of(place.head) or place.head)
