"""int8: graphs quantised one by one, before they are joined."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from offramp.errors import UsageError
from offramp.export.graph import OPSET
from offramp.export.parts import Tensors


def quantised(part: ir.Graph, examples: Sequence[Tensors]) -> ir.Graph:
    """A piece whose products with weights, convolutions among them, are computed in int8, by ONNX Runtime's quantiser.

    Attention's products, of two activations each, stay fp32: between quantised ones ONNX Runtime computes the softmax
    in int8 as well, and ViTs are far off. So does a convolution that is alone in its piece, a patch embedding: with it
    OpenVINO is off as well. Weights are quantised for each channel, with seven of the eight bits: processors without
    VNNI add products in 16 bits, which overflow otherwise, in either runtime, and a file should answer the same
    everywhere. Activations are quantised by the range that they have on the examples (QDQ format, which OpenVINO reads
    as well). Statistics cannot be taken inside an ``If``; this is why graphs are quantised, not the joined graph. What
    goes from piece to piece stays fp32.

    Args:
        part: a segment of the backbone.
        examples: its inputs, one tuple a batch.

    Raises:
        UsageError: onnxruntime is not installed.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise UsageError("quantisation needs onnxruntime: pip install 'offramp[onnx]'") from error

    names = [value.name for value in part.inputs]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows: Iterator[Tensors] = iter(examples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {n: t.cpu().numpy() for n, t in zip(names, row, strict=True) if n}

    part.opset_imports[""] = OPSET
    kept = [n for n in part if n.op_type == "MatMul" and not any(x and x.is_initializer() for x in n.inputs)]
    convolutions = [n for n in part if n.op_type == "Conv"]
    if len(convolutions) == 1:
        kept += convolutions
    proto = ir.to_proto(ir.Model(part, ir_version=10))
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises, on the root logger, to prepare the model otherwise
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_static(
                proto,
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm", "Conv"],
                nodes_to_exclude=[n.name for n in kept],
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return ir.from_proto(onnx.load(path)).graph
    finally:
        logging.getLogger().setLevel(level)
