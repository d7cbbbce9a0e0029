"""Sessions over a self-exiting file, whichever runtime runs it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from offramp._batches import Inputs, count, parts
from offramp.errors import ArtifactError, UsageError
from offramp.export import export_onnx, export_static_onnx
from offramp.export.metadata import ExportedFile
from offramp.export.parts import holds, policy_inputs
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed, inner_of, into
from offramp.policies.forced import Forced
from offramp.types import Network, Trace

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], Mapping[str, np.ndarray]]
"""Inputs by name to outputs by name: output, exit, score, and entry and route where the file asks a router."""


def open_exported(model: EarlyExitModel, policy: Policy, opens: Callable[[Path], FileSession]) -> FileSession:
    """Export a model and open the file, which need not outlive that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path, policy)
        return opens(path)


def open_static(network: nn.Module, example: Inputs, opens: Callable[[Path], Network]) -> Network:
    """The same for a network without exits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "static.onnx"
        export_static_onnx(network, example, path)
        return opens(path)


def check_images(path: str | Path, takes: bool) -> None:
    """Raise ``ArtifactError`` unless a file takes one batch of images of one size, and nothing else."""
    if not takes:
        raise ArtifactError(f"{path} does not take float32 images of one size alone, so it is nothing to compare with")


class FileSession:
    """A self-exiting file, opened.

    Args:
        file: what was read.
        call: runs it.
        precision: of the runtime. A file that was quantised is ``int8``, and ``int8-bf16`` where what is left of it
            is computed in bf16: scores, and so thresholds, are others.
    """

    def __init__(self, file: ExportedFile, call: Call, precision: str) -> None:
        self.file, self._call = file, call
        own = file.about["precision"]
        self.precision = "-".join([part for part in (own, precision) if part != "fp32"] or ["fp32"])
        self.raw = bool(file.about["preprocess"])
        """Whether the file prepares samples itself: it takes them as they are."""
        self._paths = torch.tensor(file.chain.paths)
        self._checked: tuple[Policy, dict[str, np.ndarray]] | None = None

    def __call__(self, x: Inputs, policy: Policy | None = None, max_exit: int | None = None) -> Trace:
        """A batch, such as images ``(B, C, H, W)``, to its answers.

        Args:
            x: prepared samples, float32; samples as they are, such as uint8 ``(B, height, width, C)``, where the file
                prepares them itself.
            policy: a policy of the kind in the file, with the same exits, whose numbers to use.
            max_exit: the exit at which everybody leaves at the latest.

        Raises:
            DataError: samples of another type or shape than the file takes.
            UsageError: another policy than the file's; an exit that it does not have.
        """
        inputs, found = self._answers(x, policy, max_exit)
        entry = torch.from_numpy(inputs["entries"]) if "entries" in inputs else found.get("entry")
        path = self._paths[found["exit"]]
        return Trace(found["output"], found["exit"], found["score"], path, entry)  # type: ignore[arg-type]

    def route(self, x: Inputs) -> Tensor | None:
        """What the file's router says of a batch, before the bias, ``(B, paths)``; None where the file asks none.

        Zeros where the model has no router and the bias alone decides. Arguments and errors as above.
        """
        own = self.file.policy
        if not isinstance(own, Routed):
            return None
        return self._answers(x, into(own.inner, 0, self.file.chain.num_paths), 0)[1]["route"]

    def _answers(
        self, x: Inputs, policy: Policy | None, max_exit: int | None
    ) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
        """What the graph was given, and what it gave."""
        self.file.input.check(x, self.raw)
        given = dict(zip(self.file.input.shapes, (part.cpu().numpy() for part in parts(x)), strict=True))
        inputs = {**given, **self._numbers(self.file.policy if policy is None else policy, count(x))}
        last = len(self.file.about["exits"]) - 1
        if max_exit is not None and not 0 <= max_exit <= last:
            raise UsageError(f"max_exit is {max_exit}; the file has exits 0 to {last}")
        inputs["max_exit"] = np.array(last if max_exit is None else max_exit)
        return inputs, {name: torch.from_numpy(np.asarray(part)) for name, part in self._call(inputs).items()}

    def _numbers(self, policy: Policy, samples: int) -> dict[str, np.ndarray]:
        """What the graph is given of a policy."""
        if self._checked is None or self._checked[0] is not policy:  # a service asks with the same one all day
            self._checked = (policy, self._fixed(policy))
        numbers, inner = dict(self._checked[1]), inner_of(policy)
        if isinstance(inner, Forced):
            numbers["exits"] = inner.init(samples)[0].numpy()
            if inner.entries is not None:
                numbers["entries"] = np.array(inner.entries, np.int64)
        return numbers

    def _fixed(self, policy: Policy) -> dict[str, np.ndarray]:
        """The policy's own numbers, whatever the batch; ``UsageError`` where the file cannot compute it."""
        own = self.file.policy
        if not holds(own, policy, self.file.switched):
            raise UsageError(
                f"the file was exported with a policy of the kind {type(own).__name__} on {own.score} at exits "
                f"{list(own.heads)}, and only its numbers can be others; this is a {type(policy).__name__} on "
                f"{policy.score} at exits {list(policy.heads)}: export the model with it"
            )
        numbers = {name: value.numpy() for name, value in policy_inputs(policy).items()}
        if any(np.isnan(value).any() for value in numbers.values()):
            raise UsageError("a number of the policy is not a number (NaN)")
        return numbers
