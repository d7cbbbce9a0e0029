"""What requests to a model and its answers look like: names, shapes, and the way from tensors to a batch and back."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from offramp._batches import Inputs, loaded, of_parts
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.protocol.oip import Values
from offramp.serving.answer import Answer

_ASKED = ("deadline_ms", "max_exit", "priority", "threshold", "timeout")


class Form:
    """The form of the requests to a model.

    Args:
        model: the model.
        most: samples in a request.

    Raises:
        UsageError: a model that counts in crops: it would take an image for one of them.
    """

    def __init__(self, model: EarlyExitModel, most: int) -> None:
        if model.input.crops != (1, 1):
            raise UsageError("the model counts in crops of an image, and a server answers samples: use offramp predict")
        self.model, self.most = model, most
        self.prepare = model.input.transform()
        self.file = model.input.noun.removesuffix("s").replace(" ", "_")
        """The name of the input that takes files."""

    def metadata(self, name: str) -> dict[str, Any]:
        """What the protocol calls a model's metadata."""
        prepared = [_about(part, "FP32", *shape) for part, shape in self.model.input.shapes.items()]
        outputs = [
            _about("output", "FP32", self.model.num_outputs),
            _about("exit", "INT32"),
            _about("path", "INT32"),
            _about("score", "FP32"),
            _about("deadline_exit", "BOOL"),
            _about("queue_ms", "FP32"),
            _about("compute_ms", "FP32"),
        ]
        if self.model.classes is not None:
            outputs.append(_about("label", "BYTES"))
        inputs = [_about(self.file, "BYTES"), *prepared]
        about = {"versions": ["1"], "platform": "offramp_pytorch"}
        return {"name": name, **about, "inputs": inputs, "outputs": outputs}

    def count(self, inputs: Mapping[str, Values]) -> int:
        """How many samples there are. Raises ``DataError`` for too many."""
        samples = max(map(len, inputs.values()), default=0)
        if samples > self.most:
            raise DataError(f"a request has at most {self.most} samples, this one {samples}")
        return samples

    def batch(self, inputs: Mapping[str, Values]) -> Inputs:
        """A batch from files, or from the parts of prepared samples.

        Raises:
            DataError: other inputs than the model's, or files that cannot be read.
        """
        reads = self.model.input
        if inputs.keys() == {self.file}:
            files = inputs[self.file]
            if not isinstance(files, list):
                raise DataError(f"input {self.file!r} holds files: its datatype is BYTES")
            read = [reads.read(io.BytesIO(file), f"{self.file} {i}") for i, file in enumerate(files)]
            return loaded(torch.utils.data.default_collate([self.prepare(sample) for sample in read]))
        if inputs.keys() != reads.shapes.keys():
            wanted = f"{self.file}, or {' and '.join(reads.shapes)}"
            raise DataError(f"the model's input is {wanted}; the request has {', '.join(inputs)}")
        parts = []
        for part, shape in reads.shapes.items():
            values = inputs[part]
            if isinstance(values, list) or values.shape[1:] != shape:
                found = "BYTES" if isinstance(values, list) else list(values.shape)
                raise DataError(f"input {part!r} is FP32 {[-1, *shape]}, not {found}")
            parts.append(torch.from_numpy(values))
        if len({len(part) for part in parts}) > 1:
            raise DataError("the parts of the samples are not equally many")
        return of_parts(tuple(parts))

    @staticmethod
    def limit(parameters: Mapping[str, Any], most: float) -> float:
        """Seconds until the answer is due, at most ``most``: Triton's ``timeout`` is in microseconds, 0 says nothing.

        Raises:
            DataError: a parameter that there is not, or a time that is none.
        """
        if unknown := sorted(parameters.keys() - {*_ASKED, "binary_data_output", "sequence_id"}):
            raise DataError(f"there is no parameter {unknown[0]!r}; there are {', '.join(_ASKED)}")
        found = [most]
        for name, unit in (("timeout", 1e-6), ("deadline_ms", 1e-3)):
            value = parameters.get(name)
            if value is None or (name == "timeout" and value == 0):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise DataError(f"{name} is {value!r}; it is a number above 0")
            found.append(unit * value)
        return min(found)

    @staticmethod
    def asked(parameters: Mapping[str, Any]) -> tuple[int | None, float | None]:
        """The latest exit and the threshold of a request. Raises ``DataError`` for others than numbers."""
        last, threshold = parameters.get("max_exit"), parameters.get("threshold")
        if last is not None and type(last) is not int:
            raise DataError(f"max_exit is {last!r}; it is the number of an exit")
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            raise DataError(f"threshold is {threshold!r}; it is a number from 0 to 1")
        return last, threshold

    def outputs(self, answers: list[Answer]) -> dict[str, Values]:
        """What is answered, by name, in the order of the samples."""
        output = torch.stack([a.output for a in answers])
        found: dict[str, Values] = {
            "output": output.numpy(),
            "exit": np.array([a.exit for a in answers], np.int32),
            "path": np.array([a.path for a in answers], np.int32),
            "score": np.array([a.score for a in answers], np.float32),
            "deadline_exit": np.array([a.stopped for a in answers]),
            "queue_ms": np.array([1e3 * a.queued for a in answers], np.float32),
            "compute_ms": np.array([1e3 * a.computed for a in answers], np.float32),
        }
        if (classes := self.model.classes) is not None:
            found["label"] = [classes[k].encode() for k in self.model.task.answer(output).tolist()]
        return found


def _about(name: str, kind: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": [-1, *shape]}
