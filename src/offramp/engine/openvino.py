"""OpenVINO: the self-exiting file, compiled for this processor."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from offramp._batches import Inputs, parts
from offramp.engine.file import Arrays, FileSession, check_images, open_exported, open_static
from offramp.engine.runtime import check_precision
from offramp.errors import ArtifactError, Notice, UsageError
from offramp.export.metadata import read_bytes, read_graph
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.types import Network
from offramp.versions import cores


class OpenVinoRuntime:
    """OpenVINO on the processor.

    Args:
        precision: ``fp32`` or ``bf16``. It is always said to the runtime, which would choose by itself otherwise, and
            thresholds belong to a precision. On a processor without bf16 it computes in fp32, and a ``Notice`` says so.
        threads: for each model; 0 leaves it to the runtime.
    """

    name = "openvino"
    precisions: tuple[str, ...] = ("fp32", "bf16")

    def __init__(self, precision: str = "fp32", threads: int = 0) -> None:
        check_precision(self, precision)
        self._core = _core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            warnings.warn("this processor has no bf16: OpenVINO computes in fp32 instead", Notice, stacklevel=2)
        self.precision, self.threads = precision, threads or cores()

    def static(self, network: nn.Module, example: Inputs) -> Network:
        """The network as a file of its own."""
        return open_static(network, example, self.open_network)

    def dynamic(self, model: EarlyExitModel, policy: Policy) -> FileSession:
        """Export the model and open the file."""
        return open_exported(model, policy, self.open)

    def open(self, path: str | Path) -> FileSession:
        """Open a self-exiting file.

        Raises:
            ArtifactError: a file that is none, or was changed.
        """
        proto, file = read_graph(path)
        _drop_defaults(proto)
        content = proto.SerializeToString()
        del proto  # its weights should not stand beside those of the compiled model
        compiled = self._compile(content)
        names = {i.any_name for i in compiled.inputs}
        outputs = [o.any_name for o in compiled.outputs]

        def call(inputs: Arrays) -> Arrays:
            found = compiled({name: value for name, value in inputs.items() if name in names})
            return {name: found[name] for name in outputs}

        return FileSession(file, call, self.precision)

    def open_network(self, path: str | Path) -> Network:
        """Open what ``export_static_onnx`` wrote."""
        return _network(self._compile(read_bytes(path)))

    def open_static(self, path: str | Path) -> tuple[Network, tuple[int, ...]]:
        """Open any ONNX file with one input of images, to compare with; and the shape of an image that it takes.

        Raises:
            ArtifactError: no such file, one that the runtime does not take, or one that takes something else.
        """
        compiled = self._compile(read_bytes(path))
        given, *more = compiled.inputs
        sizes = list(given.partial_shape)[1:]
        floats = given.element_type.to_dtype() == np.float32
        check_images(path, not more and floats and all(d.is_static for d in sizes))
        shape = tuple(d.get_length() for d in sizes)
        return _network(compiled), shape

    def _compile(self, proto: bytes) -> Any:
        hint = {"fp32": "f32", "bf16": "bf16"}[self.precision]
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": self.threads}
        try:
            return self._core.compile_model(self._core.read_model(proto), "CPU", settings)
        except Exception as error:  # its errors have no common class
            raise ArtifactError(f"OpenVINO does not take the file: {' '.join(str(error).split())}") from error


def _network(compiled: Any) -> Network:
    def call(x: Inputs) -> Tensor:
        return torch.from_numpy(compiled([part.cpu().numpy() for part in parts(x)])[0])

    return call


@cache
def _core() -> Any:
    """The one of this process, which is never freed.

    Each sets a stack for signals, and puts back the one that was there before. Of several, freed in another order than
    backwards, one puts back a stack that is gone, and the next signal ends the process: that a child of a loader ended,
    for instance.
    """
    try:
        import openvino
    except ImportError as error:
        raise UsageError("this runtime needs openvino: pip install 'offramp[openvino]'") from error
    return openvino.Core()


def _drop_defaults(proto: onnx.ModelProto) -> None:
    """Take the defaults of inputs away: OpenVINO takes an input that has one for a constant."""
    names = {i.name for i in proto.graph.input}
    for i in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[i].name in names:
            del proto.graph.initializer[i]
