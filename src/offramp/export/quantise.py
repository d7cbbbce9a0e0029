"""int8: graphs quantised one by one, before they are joined."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from offramp.errors import UsageError
from offramp.export.graph import OPSET
from offramp.export.parts import Tensors

_PRODUCTS = {"MatMul", "Gemm", "Conv"}
"""What is computed in int8, and nothing else: with transposes and pools in int8, OpenVINO is wrong in branches."""


def quantised(part: ir.Graph, examples: Sequence[Tensors], shared: bool = False) -> ir.Graph:
    """A piece whose products and convolutions are computed in int8, by NNCF with its rules for transformers.

    Those move large activations into the weights before a product (SmoothQuant, 2211.10438) and correct the biases.
    Weights that several paths share are left as they are: each path would have others, and the file would hold them
    once for each. Weights are quantised for each channel, with seven of the eight bits but in depthwise convolutions:
    processors without VNNI add products in 16 bits, which overflow otherwise, in either runtime, and a file should
    answer the same everywhere. Activations are quantised by the range that they have on the examples (QDQ format,
    which both runtimes read). Statistics cannot be taken inside an ``If``; this is why graphs are quantised, not the
    joined graph. What goes from piece to piece is not quantised.

    Args:
        part: a segment of the backbone.
        examples: its inputs, one tuple a batch.
        shared: whether other pieces compute with the same weights.

    Raises:
        UsageError: nncf is not installed.
    """
    kinds = {node.op_type for node in part}
    if not kinds & _PRODUCTS:
        return part
    nncf = _nncf()
    names = [value.name for value in part.inputs]
    rows = [
        {name: tensor.cpu().numpy() for name, tensor in zip(names, row, strict=True) if name is not None}
        for row in examples
    ]
    part.opset_imports[""] = OPSET
    options = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    if shared:
        options.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    with _silent(nncf):
        made = nncf.quantize(
            ir.to_proto(ir.Model(part, ir_version=10)),
            nncf.Dataset(rows),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
            ignored_scope=nncf.IgnoredScope(types=sorted(kinds - _PRODUCTS)),
            advanced_parameters=options,
        )
    _unsigned(made.graph)
    return ir.from_proto(made).graph


def _unsigned(graph: onnx.GraphProto) -> None:
    """Activations from int8 to uint8, in the same steps: of signed ones ONNX Runtime computes branches in fp32."""
    points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    for value in graph.initializer:
        if value.name in points and value.data_type == onnx.TensorProto.INT8:
            moved = onnx.numpy_helper.to_array(value).astype(np.int16) + 128
            value.CopyFrom(onnx.numpy_helper.from_array(moved.astype(np.uint8), value.name))
    del graph.value_info[:]  # types of what was signed


def _nncf() -> Any:
    """The package; it would report its use to its makers, which a model's owner was not asked about."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf
    except ImportError as error:
        raise UsageError("quantisation needs nncf: pip install 'offramp[int8]'") from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    return nncf


@contextmanager
def _silent(nncf: Any) -> Iterator[None]:
    """Without its bars on stdout, which holds results, and its notes."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
