"""One self-exiting ONNX file: the model, its exits and its policy, for any number of samples, in any stock runtime."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from torch import nn

from offramp._batches import Inputs, of_parts, parts
from offramp._files import atomic_file
from offramp.errors import UsageError
from offramp.export.graph import OPSET, Body, quiet, traced
from offramp.export.join import Inside, Join
from offramp.export.metadata import describe, sealed
from offramp.export.parts import Tensors, policy_inputs
from offramp.export.pieces import Pieces, check_policy_fits
from offramp.export.quantise import quantised
from offramp.inputs import Input
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy, Routed, inner_of
from offramp.policies.forced import Forced
from offramp.policies.threshold import compares_outputs, is_gated

_DTYPES = {torch.float32: ir.DataType.FLOAT, torch.uint8: ir.DataType.UINT8}
_LARGEST = 2**31 - 2**20


def export_onnx(
    model: EarlyExitModel,
    path: str | Path,
    policy: Policy,
    *,
    preprocess: bool = False,
    int8: Iterable[Inputs] | None = None,
    record: Mapping[str, Any] | None = None,
    fixed: bool = False,
) -> None:
    """Write a model with its policy as one ONNX file that leaves early by itself.

    Samples that leave are taken out of the batch inside the graph, and what nobody needs is skipped, for any number of
    samples, none included. Inputs, all but the first with defaults:

    - ``images`` ``(B, C, H, W)`` float32, prepared as the metadata's ``input`` says; with ``preprocess`` pictures
      as they are, uint8 ``(B, height, width, C)``, all of one batch of the same size;
    - the policy's own numbers, such as ``thresholds`` float32 ``(exits,)`` (above 1 an exit is off, and its head does
      not run), ``patience`` int64, so that calibrating again needs no new file;
    - ``max_exit`` int64: the exit at which everybody leaves at the latest, for a budget that is known.

    Outputs: ``output`` ``(B, num_outputs)``, ``exit`` int64 ``(B,)``, ``score`` float32 ``(B,)``; of a policy that asks
    the router (``Routed``) also ``entry`` int64 ``(B,)``, and its ``bias`` is an input. The metadata entry
    ``offramp`` says in JSON what the file is: classes, input, exits, policy, versions.

    The exits of a policy that is no plain threshold rule are fixed in the file, and with ``fixed`` those of any: what
    the policy never asks is left out, so that the file is smaller and, for few samples, quicker; its numbers can still
    be others. With the ``forced`` policy the exit of each sample is an input, ``exits`` int64 ``(B,)``.

    Args:
        model: the model.
        path: the file; it appears when it is complete.
        policy: who leaves where.
        preprocess: whether resizing, cropping and normalising are part of the graph.
        int8: prepared batches, such as images ``(B, C, H, W)``, to quantise the backbone with; heads stay fp32.
            Thresholds belong to a precision: calibrate the file afterwards.
        record: JSON values to keep in the metadata, such as how the data was split.
        fixed: whether only the exits that the policy asks are in the file.

    Raises:
        UsageError: a policy for more exits than the model has; a model that is too large for one file (2 GB);
            preprocessing that cannot be a part of the graph.
        DataError: the file cannot be written.
    """
    model = _portable(model)
    with evaluating(model), torch.no_grad():
        examples = None if int8 is None else [_portable_batch(x) for x in int8]
        made = _whole(model, policy, preprocess, examples, fixed)
    about = describe(model, policy, "fp32" if int8 is None else "int8", fixed)
    write(made, path, {**about, "preprocess": preprocess, "record": dict(record or {})})


def export_static_onnx(
    model: nn.Module, images: Inputs, path: str | Path, int8: Iterable[Inputs] | None = None
) -> None:
    """Write a network without exits as an ONNX file: ``images`` ``(B, C, H, W)`` to ``output``; to compare with.

    Args:
        model: a timm model, for instance; it is put into evaluation mode.
        images: examples of its input; of several parts the others are called ``part1``, ``part2``, …
        path: the file.
        int8: batches of images to quantise it with.
    """
    body, given = Body(), _portable_batch(images)
    names = ["images", *(f"part{i}" for i in range(1, len(given)))]
    inputs = [
        _input(name, ir.DataType.FLOAT, ("batch", *part.shape[1:])) for name, part in zip(names, given, strict=True)
    ]
    graph = traced(_Plain(_portable(model)), (given,))
    if int8 is not None:
        graph = quantised(graph, [_portable_batch(batch) for batch in int8])
    (output,) = body.call(graph, inputs)
    output.name = "output"
    write(_model(body.graph(inputs, [output], "static")), path)


def _portable(model: Any) -> Any:
    """The model itself, or a copy on the processor in float32 where it is elsewhere or of another type."""
    first = next(model.parameters())
    plain = (first.device.type, first.dtype) == ("cpu", torch.float32)
    return model if plain else copy.deepcopy(model).to("cpu", torch.float32)


def _portable_batch(x: Inputs) -> Tensors:
    return tuple(part.cpu().float() for part in parts(x))


def _preparation(reads: Input) -> ir.Graph:
    """An input's transform, for samples of any size."""
    module, example = reads.graph()
    return traced(module, (parts(example),), free=list(reads.raw_shapes.values()))


class _Plain(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, h: Tensors) -> Tensors:
        return (self.model(of_parts(h)),)


def _whole(
    model: EarlyExitModel, policy: Policy, preprocess: bool, int8: list[Tensors] | None, fixed: bool
) -> ir.Model:
    check_policy_fits(model, policy)
    inner = inner_of(policy)
    compares = compares_outputs(inner, model.task, model.num_outputs)
    gated = not fixed and is_gated(inner, model.task, model.num_outputs)
    values = policy_inputs(inner)
    graphs = Pieces(model, policy, tuple(values.values()), gated, compares, int8).graphs()
    body = Body()
    shapes: Mapping[str, tuple[int | str, ...]] = model.input.raw_shapes if preprocess else model.input.shapes
    example = parts(model.input.example(1, raw=preprocess))
    given = [
        _input(name, _DTYPES[part.dtype], ("batch", *shape))
        for (name, shape), part in zip(shapes.items(), example, strict=True)
    ]
    if preprocess:
        graphs = replace(graphs, prepare=_preparation(model.input))
    numbers = [_default(name, value.numpy()) for name, value in values.items()]
    bias = _default("bias", policy_inputs(policy)["bias"].numpy()) if isinstance(policy, Routed) else None
    max_exit = _default("max_exit", np.array(len(model.exits)))
    defaults = [*numbers, *([] if bias is None else [bias]), max_exit]
    inputs = [*given, *defaults]
    state, entries = [], None
    if isinstance(inner, Forced):
        state = [_input("exits", ir.DataType.INT64, ("batch",))]
        entries = _input("entries", ir.DataType.INT64, ("batch",)) if inner.entries is not None else None
        inputs += state if entries is None else [*state, entries]
    thresholds = numbers[list(values).index("thresholds")] if gated else None
    join = Join(graphs, numbers, max_exit, thresholds, compares)
    count = body.op("Shape", given[0], start=0, end=1)
    rows = body.op("Range", body.number(0), body.op("Reshape", count, body.number([0][:0])), body.number(1))
    shape = body.op("Concat", count, body.number([model.num_outputs]), axis=0)
    nothing = [
        body.op("ConstantOfShape", shape),
        body.op("ConstantOfShape", count, value=ir.tensor(np.array([0]))),
        body.op("ConstantOfShape", count),
    ]
    outputs = join.through(body, Inside(given, rows, nothing, [], state), bias, entries)
    _named(outputs[0], "output", ir.DataType.FLOAT, ("batch", model.num_outputs))
    _named(outputs[1], "exit", ir.DataType.INT64, ("batch",))
    _named(outputs[2], "score", ir.DataType.FLOAT, ("batch",))
    if join.said is not None and join.entry is not None:
        outputs = [*outputs, join.entry, join.said]
        _named(outputs[3], "entry", ir.DataType.INT64, ("batch",))
        _named(outputs[4], "route", ir.DataType.FLOAT, ("batch", model.chain.num_paths))
    body.initializers += defaults
    return _model(body.graph(inputs, outputs, "offramp"))


def _input(name: str, dtype: ir.DataType, shape: tuple[Any, ...]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _named(value: ir.Value, name: str, dtype: ir.DataType, shape: tuple[Any, ...]) -> None:
    value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)


def _default(name: str, value: np.ndarray) -> ir.Value:
    """An input with a default: ONNX has it as an input and an initializer of one name."""
    found = _input(name, ir.DataType.from_numpy(value.dtype), value.shape)
    found.const_value = ir.tensor(value, name=name)
    return found


def write(made: ir.Model, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a model as one file, with what it says about itself.

    Raises:
        UsageError: a model above 2 GB.
        DataError: the file cannot be written.
    """
    proto = ir.to_proto(made)
    if proto.ByteSize() > _LARGEST:
        raise UsageError(f"the model takes {proto.ByteSize() / 1e9:.1f} GB, and one ONNX file holds at most 2")
    content = proto.SerializeToString() if about is None else sealed(proto, about)
    with atomic_file(Path(path)) as new:
        new.write_bytes(content)


def _model(graph: ir.Graph) -> ir.Model:
    graph.opset_imports[""] = OPSET
    made = ir.Model(graph, ir_version=10, producer_name="offramp")
    passed = (
        passes.ClearMetadataAndDocStringPass(),
        passes.RemoveUnusedNodesPass(),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(size_limit=_LARGEST),
        passes.NameFixPass(),
    )
    with quiet():
        for improve in passed:
            made = improve(made).model
    inner = [v for node in made.graph.all_nodes() for v in node.outputs if v not in made.graph.outputs]
    for i, value in enumerate(inner):
        value.name = f"v{i}"  # no two of all branches may have one name
        if not value.is_graph_output():  # a piece knew its own number of samples only
            value.shape = value.type = None
    return made
