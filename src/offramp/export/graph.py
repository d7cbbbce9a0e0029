"""Graphs as ONNX graphs, and building a larger graph from them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tape import Tape
from torch import Tensor, nn

OPSET = 20


def traced(
    part: nn.Module,
    arguments: tuple[tuple[Tensor, ...], ...],
    fixed: Sequence[int] = (),
    free: Sequence[Sequence[int | str]] = (),
) -> ir.Graph:
    """A module as an ONNX graph for any number of samples.

    Args:
        part: takes tuples of tensors, returns a tuple of tensors.
        arguments: examples; the first dimension of every tensor is the sample, but for those of ``fixed``.
        fixed: which of the arguments hold tensors whose shape is what it is.
        free: for each tensor of the first argument its sizes behind the sample; one that may be any has a name.
    """
    names = {"batch", *(size for sizes in free for size in sizes if isinstance(size, str))}
    dims = {name: torch.export.Dim(name, min=1) for name in names}
    more = [{i: dims[size] for i, size in enumerate(sizes, start=1) if isinstance(size, str)} for sizes in free]
    shapes = tuple(
        tuple(
            {} if i in fixed else {0: dims["batch"], **(more[j] if more and i == 0 else {})} for j in range(len(group))
        )
        for i, group in enumerate(arguments)
    )
    with quiet(), torch.no_grad():
        exported = torch.export.export(part.eval(), arguments, dynamic_shapes=shapes)
        program = torch.onnx.export(exported, opset_version=OPSET, verbose=False)
    assert program is not None
    return program.model.graph


Branch = Callable[["Body"], Sequence[ir.Value]]


class Body:
    """A graph in the making: the main one, or a branch of an ``If``, which sees the values of those around it."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A node with one output."""
        value = self.tape.op(kind, inputs, attributes)
        self.nodes.append(self.tape.nodes[-1])
        return value

    def call(self, part: ir.Graph, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """The nodes of a piece, reading these values; what it gives."""
        nodes = list(part)
        part.remove(nodes)
        outputs = list(part.outputs)
        for inner, given in zip(list(part.inputs), inputs, strict=True):
            ir.convenience.replace_all_uses_with(inner, given)
            outputs = [given if o is inner else o for o in outputs]
        part.outputs.clear()
        for name in list(part.initializers):
            value = part.initializers.pop(name)
            value.name = f"{name}.{len(self.initializers)}"  # two graphs may have chosen one name
            self.initializers.append(value)
        self.nodes += nodes
        return outputs

    def call_all(self, pieces: Sequence[ir.Graph], inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """One piece behind another; what the last gives."""
        values = list(inputs)
        for part in pieces:
            values = self.call(part, values)
        return values

    def number(self, value: Any, dtype: Any = np.int64) -> ir.Value:
        """A constant."""
        return self.op("Constant", value=ir.tensor(np.array(value, dtype)))

    def nothing(self, example: Tensor) -> ir.Value:
        """Such a tensor of no samples."""
        value = np.zeros(1, example.new_zeros(0).cpu().numpy().dtype)
        return self.op("ConstantOfShape", self.number([0, *example.shape[1:]]), value=ir.tensor(value))

    def blank(self, example: Tensor, rows: ir.Value) -> ir.Value:
        """Such a tensor of zeros, with one for each of the rows ``(n,)``."""
        value = np.zeros(1, example.new_zeros(0).cpu().numpy().dtype)
        shape = self.op("Concat", self.op("Shape", rows), self.number(list(example.shape[1:])), axis=0)
        return self.op("ConstantOfShape", shape, value=ir.tensor(value))

    def choose(self, condition: ir.Value, then: Branch, other: Branch) -> list[ir.Value]:
        """An ``If``: each branch is a function from its empty body to the values that it gives."""
        graphs = {}
        for name, fill in (("then_branch", then), ("else_branch", other)):
            body = Body()
            graphs[name] = body.graph((), fill(body))
        node = ir.node("If", [condition], graphs, num_outputs=len(graphs["then_branch"].outputs))
        self.nodes.append(node)
        return list(node.outputs)

    def graph(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], name: str = "branch") -> ir.Graph:
        """The finished graph; what it only hands on goes through ``Identity``, as ONNX wants it."""
        own = {output for node in self.nodes for output in node.outputs}
        given = [output if output in own else self.op("Identity", output) for output in outputs]
        seen: set[Any] = set()
        for i, output in enumerate(given):
            if output in seen:
                given[i] = self.op("Identity", output)
            seen.add(given[i])
        return ir.Graph(list(inputs), given, nodes=self.nodes, initializers=self.initializers, name=name)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say about themselves."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnx_ir")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
