"""A model as plain values, and the model that such values describe, never larger than the weights that come with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from offramp.backbones import SideEncoder, layer_norm_eps, set_layer_norm_eps
from offramp.errors import UsageError
from offramp.inputs import Input, input_from_json, input_to_json
from offramp.model import EarlyExitModel, attach
from offramp.registry import HEADS, TABLES, check_packages, packages
from offramp.tasks import task_name
from offramp.types import Exit, Part

_NOT_FROM_A_FILE = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
}
_LARGEST_NUMBER = 10**5
"""That stands in a description: no model has so many blocks, heads or pixels in a row."""
_LARGEST_BUFFERS = 2**30
"""Bytes of tensors that are computed while a model is built (masks, tables of positions)."""


class _Section(BaseModel):
    model_config = ConfigDict(strict=True)


class _Backbone(_Section):
    name: str
    args: dict[str, Any]
    layer_norm_eps: dict[str, float] = {}


class _Side(_Backbone):
    input_size: list[int]


class _Exit(_Section):
    after: int = Field(ge=1)
    head: str
    options: dict[str, Any]
    path: int | None = None
    side: str | None = None


class _Part(_Section):
    name: str
    options: dict[str, Any]


class _Description(_Section):
    backbone: _Backbone
    exits: list[_Exit]
    final: _Exit | None = None
    paths: list[_Part] = []
    link: _Part = _Part(name="none", options={})
    router: _Part | None = None
    side: _Side | None = None
    shared_heads: bool = True
    num_outputs: int | None = Field(default=None, ge=1)
    task: str
    classes: list[str] | None
    input: dict[str, Any]


def describe(model: EarlyExitModel) -> dict[str, Any]:
    """Backbone, exits, task, classes and input as plain values.

    Raises:
        UsageError: a backbone that does not know its timm name; a head, a task or an input that is in no table.
    """
    task = task_name(model.task)
    exits = [_named(e) for e in model.placed]
    final = None if model.final_exit is None else _named(model.final_exit)
    reads = input_to_json(model.input)
    heads = [e["head"] for e in exits] + ([] if final is None else [final["head"]])
    paths, link, router = (
        [_known("paths", part) for part in model.path_parts],
        _known("links", model.link),
        None if model.router_part is None else _known("routers", model.router_part),
    )
    used = {"heads": heads, "tasks": [task], "inputs": [reads["name"]], "links": [link["name"]]}
    used |= {"paths": [p["name"] for p in paths], "routers": [] if router is None else [router["name"]]}
    return {
        "backbone": _timm(model.backbone.model),
        "exits": exits,
        "final": final,
        "paths": paths,
        "link": link,
        "router": router,
        "shared_heads": model.share,
        "num_outputs": model.num_outputs,
        "task": task,
        "classes": None if model.classes is None else list(model.classes),
        "input": reads,
        "packages": packages(used),
        **({} if model.side is None else {"side": _side(model.side)}),
    }


def build(values: Mapping[str, Any], weights: Mapping[str, Tensor]) -> EarlyExitModel:
    """The model that values describe, with its weights.

    It is built without memory first (torch's ``meta`` device), and compared with the weights; only what they fill is
    then built. So a description alone cannot ask for more memory than the file of weights is worth.

    Raises:
        UsageError: values that describe no model, or another one than the weights are of.
    """
    check_packages(values.get("packages"))
    try:
        description = _Description.model_validate(dict(values))
        _check_size(description)
        reads = input_from_json(description.input)
        with torch.device("meta"), _at_most(2 * len(weights) + 64):
            planned = _made(description, reads)
        _check_buffers(planned, weights)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    except UsageError:
        raise
    except Exception as error:  # timm raises whatever the arguments make it raise
        raise UsageError(" ".join(str(error).split()) or type(error).__name__) from error
    _compare(planned.state_dict(), weights)
    model = _made(description, reads)
    model.load_state_dict(dict(weights))
    return model.eval()


def _made(described: _Description, reads: Input) -> EarlyExitModel:
    inner = _created(described.backbone, reads.pretrained_cfg())
    exits = [_exit(e) for e in described.exits]
    last = None if described.final is None else _exit(described.final)
    return attach(
        inner,
        exits,
        described.task,
        described.classes,
        reads,
        last,
        described.num_outputs,
        paths=[_part(p) for p in described.paths],
        link=_part(described.link),
        router=None if described.router is None else _part(described.router),
        shared_heads=described.shared_heads,
        side=None if described.side is None else _created(described.side, _size(described.side)),
    )


def _size(described: _Side) -> dict[str, Any]:
    return {"input_size": tuple(described.input_size)}


def _created(described: _Backbone, overlay: Mapping[str, Any]) -> Any:
    """A timm model of random weights."""
    name, arguments = described.name, described.args
    if not timm.is_model(name):
        raise UsageError(f"timm {timm.__version__} has no model {name!r}")
    if forbidden := _NOT_FROM_A_FILE & arguments.keys():
        raise UsageError(f"argument {min(forbidden)!r} is not taken from a file")
    inner = timm.create_model(name, pretrained=False, pretrained_cfg_overlay=dict(overlay), **arguments)
    set_layer_norm_eps(inner, described.layer_norm_eps)  # before a cut by graph would read it
    return inner


def _timm(inner: Any) -> dict[str, Any]:
    """A timm model as plain values. Raises ``UsageError`` for one that does not know its name."""
    arguments = {k: v for k, v in getattr(inner, "_model_args", {}).items() if k not in _NOT_FROM_A_FILE}
    architecture = getattr(inner, "pretrained_cfg", {}).get("architecture")
    if architecture is None:
        raise UsageError("only a backbone from timm.create_model can be saved: this one does not know its name")
    return {
        "name": architecture,
        "args": {**arguments, "num_classes": inner.num_classes},
        "layer_norm_eps": layer_norm_eps(inner),
    }


def _side(encoder: SideEncoder) -> dict[str, Any]:
    return {**_timm(encoder.model), "input_size": list(encoder.input_size)}


def _part(described: _Part) -> Part:
    return Part(described.name, described.options)


def _known(kind: str, part: Part) -> dict[str, Any]:
    if not isinstance(part.name, str) or part.name not in TABLES[kind]:
        raise UsageError(f"{TABLES[kind].kind} {part.name!r} is in no table; a saved model names its parts")
    return {"name": part.name, "options": dict(part.options)}


def _exit(described: _Exit) -> Exit:
    return Exit(described.after, described.head, described.options, described.path, described.side)


def _named(e: Exit) -> dict[str, Any]:
    if not isinstance(e.head, str) or e.head not in HEADS:
        raise UsageError(f"head {e.head!r} is in no table; a saved model names its heads")
    heard = {} if e.side is None else {"side": e.side}
    return {"after": e.after, "head": e.head, "options": dict(e.options), "path": e.path, **heard}


def _check_size(described: _Description) -> None:
    """Raise ``UsageError`` for numbers that no model has, before anything is made of them."""

    def numbers(value: Any) -> Iterator[int | float]:
        if isinstance(value, (int, float)):
            yield value
        elif isinstance(value, (list, dict)):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from numbers(inner)

    everything = [
        described.backbone.args,
        None if described.side is None else described.side.args,
        described.input,
        described.num_outputs,
        *(e.options for e in described.exits),
        *(part.options for part in (*described.paths, described.link)),
    ]
    if described.final is not None:
        everything.append(described.final.options)
    if described.router is not None:
        everything.append(described.router.options)
    for number in numbers(everything):
        if not abs(number) <= _LARGEST_NUMBER:
            raise UsageError(f"the number {number:g} is beyond what any model has")


def _check_buffers(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    computed = sum(b.numel() * b.element_size() for name, b in model.named_buffers() if name not in weights)
    if computed > _LARGEST_BUFFERS:
        raise UsageError(f"it would compute tables of {computed / 1e9:.1f} GB")


def _compare(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    if own.keys() != weights.keys():
        missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        said = [
            f"{what} {', '.join(names[:3])}" for what, names in (("missing", missing), ("unknown", foreign)) if names
        ]
        raise UsageError(f"its weights do not fit: {'; '.join(said)}")
    for name, tensor in own.items():
        found = weights[name]
        if found.shape != tensor.shape or found.is_floating_point() != tensor.is_floating_point():
            raise UsageError(
                f"its weights do not fit: {name} is {found.dtype} {tuple(found.shape)}, not "
                f"{tensor.dtype} {tuple(tensor.shape)}"
            )


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Inside, no more parameters can be made than that: a description may ask for a million blocks."""
    made = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        made += 1
        if made > parameters:
            raise UsageError("its weights do not fit: it has more parameters than there are weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
