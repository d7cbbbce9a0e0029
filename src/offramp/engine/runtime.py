"""The seam of runtimes: what computes a network, and a model that leaves early."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import nn

from offramp._batches import Inputs
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.registry import RUNTIMES
from offramp.types import Network, Trace

if TYPE_CHECKING:
    from offramp.engine.file import FileSession


class Session(Protocol):
    """A model that leaves early, opened in a runtime."""

    def __call__(self, x: Inputs, policy: Policy | None = None) -> Trace:
        """A batch, such as images ``(B, C, H, W)``, to their answers.

        Args:
            x: a batch on the runtime's device.
            policy: a policy of the kind that the session was opened with, whose numbers to use instead.
        """


class Runtime(Protocol):
    """What computes: PyTorch, ONNX Runtime, …; it may be opened for any number of models."""

    name: str
    precisions: tuple[str, ...]
    precision: str
    threads: int
    """How many threads compute; the same number means the same in every runtime."""

    def static(self, network: nn.Module, example: Inputs) -> Network:
        """A network without exits; ``example`` is a batch, such as ``(B, C, H, W)``, and B may be another later."""

    def dynamic(self, model: EarlyExitModel, policy: Policy) -> Session:
        """A model that leaves early."""


@runtime_checkable
class FileRuntime(Runtime, Protocol):
    """A runtime that opens exported files."""

    def open(self, path: str | Path) -> FileSession:
        """Open a self-exiting file. Raises ``ArtifactError`` for a file that is none, or was changed."""

    def open_network(self, path: str | Path) -> Network:
        """Open what ``export_static_onnx`` wrote."""

    def open_static(self, path: str | Path) -> tuple[Network, tuple[int, ...]]:
        """Open any ONNX file with one input of images, and the shape of an image that it takes."""


def open_runtime(name: str | Runtime, precision: str = "fp32", threads: int = 0) -> Runtime:
    """A runtime by name, or the runtime itself.

    Args:
        name: from ``offramp list runtimes``.
        precision: ``fp32`` or ``bf16``; not every runtime has both.
        threads: to compute with; 0 leaves it to the runtime.

    Raises:
        UsageError: an unknown runtime, a precision that it does not have, a package that is not installed.
    """
    if not isinstance(name, str):
        return name
    runtime: Runtime = RUNTIMES.resolve(name)(precision, threads)
    return runtime


def check_precision(runtime: Runtime, precision: str) -> None:
    """Raise ``UsageError`` for a precision that a runtime does not have."""
    if precision not in runtime.precisions:
        raise UsageError(f"{runtime.name} computes in {' or '.join(runtime.precisions)}, not in {precision!r}")
