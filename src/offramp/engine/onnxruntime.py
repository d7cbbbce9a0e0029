"""ONNX Runtime: the self-exiting file in one session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from offramp._batches import Inputs, parts
from offramp.engine.file import Arrays, FileSession, check_images, open_exported, open_static
from offramp.engine.runtime import check_precision
from offramp.errors import ArtifactError, UsageError
from offramp.export.metadata import read_file
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.types import Network
from offramp.versions import cores


class OnnxRuntime:
    """ONNX Runtime on the processor.

    Args:
        precision: ``fp32``; a file that was quantised brings its own.
        threads: for each session; 0 leaves it to the runtime, which takes all cores.
    """

    name = "onnxruntime"
    precisions: tuple[str, ...] = ("fp32",)

    def __init__(self, precision: str = "fp32", threads: int = 0) -> None:
        check_precision(self, precision)
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError("this runtime needs onnxruntime: pip install 'offramp[onnx]'") from error
        self._library: Any = onnxruntime
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
        content, file = read_file(path)
        session = self._open(content, patterns=False)
        del content
        names = {i.name for i in (*session.get_inputs(), *session.get_overridable_initializers())}
        outputs = [o.name for o in session.get_outputs()]

        def call(inputs: Arrays) -> Arrays:
            given = {name: value for name, value in inputs.items() if name in names}
            return dict(zip(outputs, session.run(outputs, given), strict=True))

        return FileSession(file, call, self.precision)

    def open_network(self, path: str | Path) -> Network:
        """Open what ``export_static_onnx`` wrote."""
        return _network(self._open(str(path)))

    def open_static(self, path: str | Path) -> tuple[Network, tuple[int, ...]]:
        """Open any ONNX file with one input of images, to compare with; and the shape of an image that it takes.

        Raises:
            ArtifactError: no such file, one that the runtime does not take, or one that takes something else.
        """
        session = self._open(str(path))
        given, *more = session.get_inputs()
        shape = tuple(given.shape[1:])
        check_images(path, not more and given.type == "tensor(float)" and all(isinstance(n, int) for n in shape))
        return _network(session), shape

    def _open(self, model: str | bytes, patterns: bool = True) -> Any:
        options = self._library.SessionOptions()
        options.enable_mem_pattern = patterns  # one is kept for each shape, and who stays differs from batch to batch
        options.intra_op_num_threads = self.threads
        # or the threads of a file that has answered spin on, in the way of whatever runs next
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3  # it warns of inputs that have defaults, which is what they are for
        try:
            return self._library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class
            raise ArtifactError(f"ONNX Runtime does not take the file: {' '.join(str(error).split())}") from error


def _network(session: Any) -> Network:
    names = [given.name for given in session.get_inputs()]

    def call(x: Inputs) -> Tensor:
        arrays = (part.cpu().numpy() for part in parts(x))
        return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])

    return call
