"""What defines a run, kept in its folder, so that only the same call goes on with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from offramp._files import read_json, write_json
from offramp.data import Samples, Stream
from offramp.data.samples import fingerprint
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.registry import OBJECTIVES

RECORD = "run.json"
_CHECKPOINTS = ("checkpoint-*", "stage-*/checkpoint-*")
_NAMED = 4
"""How many differences a sentence names."""


def definition(
    model: EarlyExitModel, samples: Samples | Stream, objective: Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What makes a run the run that it is, as plain values.

    The weights that a model comes with do not count where they are trained: a run that goes on has its own, and models
    that are built anew begin with others each time. ``frozen`` covers those that are not trained.

    Args:
        model: what is trained: its architecture, exits and task count.
        samples: on what: how many, their targets, and sixteen of them.
        objective: by what; its name and its settings.
        settings: the other arguments that change the result.
    """
    inner = model.backbone.model
    exits = [[e.after, name, plain(e.options)] for e, name in zip(model.exits, model.head_names, strict=False)]
    found = plain(objective)
    if name := OBJECTIVES.name_of(type(objective)):
        found["class"] = name
    return {
        **{key: plain(value) for key, value in settings.items()},
        "objective": found,
        "data": plain(samples),
        "model": {
            "backbone": getattr(inner, "pretrained_cfg", {}).get("architecture") or _path(type(inner)),
            "arguments": plain(getattr(inner, "_model_args", {})),
            "exits": exits,
            "final": None if model.final_exit is None else plain(model.final_exit),
            "task": model.task.name,
            "input": plain(model.input),
        },
    }


def frozen(model: nn.Module, trained: Iterable[nn.Parameter]) -> dict[str, Any]:
    """A digest of the parameters that are not trained, which a run takes as they come."""
    learning = {id(p) for p in trained}
    rest = {name: p for name, p in model.named_parameters() if id(p) not in learning}
    return {"weights that are not trained": digest(rest) if rest else None}


@contextmanager
def same_run(folder: Path, wanted: Mapping[str, Any]) -> Iterator[None]:
    """Compare what defines a run with what its folder keeps, or keep it there.

    What is refused inside, before the folder holds anything else, leaves nothing there.

    Raises:
        UsageError: the folder holds another run, and the sentence names what differs; or checkpoints of a run that does
            not say what it is.
    """
    file = folder / RECORD
    new = not file.exists()
    if new and any(checkpoint for pattern in _CHECKPOINTS for checkpoint in folder.glob(pattern)):
        raise UsageError(f"{folder} holds checkpoints without {RECORD}, which would say of what run: choose another")
    kept = {} if new else read_json(file)
    found = list(
        _differences({k: v for k, v in kept.items() if k in wanted}, {k: wanted[k] for k in wanted if k in kept})
    )
    if found:
        said = [f"{name} {_short(old)}, not {_short(now)}" for name, old, now in found[:_NAMED]]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UsageError(
            f"{folder} holds another run, with {'; '.join(said)}{more}: choose another folder, or remove that one"
        )
    there = folder.exists()
    if wanted.keys() - kept.keys():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, {**kept, **wanted})
    try:
        yield
    except UsageError:
        if new and [entry.name for entry in folder.iterdir()] == [RECORD]:
            file.unlink()
            if not there:
                folder.rmdir()
        raise


def plain(value: Any) -> Any:
    """Anything as JSON values, so that what computes the same becomes the same."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, Samples):
        return {"samples": len(value), "fingerprint": fingerprint(value)}
    if isinstance(value, Stream):
        return {"stream": _path(type(value.batches.dataset)), "batches": len(value)}
    if isinstance(value, nn.Module):
        return {"class": _path(type(value)), "weights": digest(value.state_dict())}
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return value.tolist()
    if isinstance(value, partial):
        return {"class": plain(value.func), "arguments": plain(value.args), **plain(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return _path(value)
    if hasattr(value, "__dict__"):
        return {"class": _path(type(value)), **plain(vars(value))}
    return str(value)


def _path(named: Any) -> str:
    return f"{named.__module__}:{named.__qualname__}"


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """A digest of tensors by name."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _differences(kept: Any, wanted: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The path of each value that is another, and both."""
    if isinstance(kept, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(k for k in kept if k not in wanted)]:
            inside = f"{where}.{key}" if where else key
            yield from _differences(kept.get(key), wanted.get(key), inside)
    elif kept != wanted:
        yield where, kept, wanted


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
