"""The static model of a server: the network without exits, in PyTorch."""

from __future__ import annotations

import torch

from offramp.artifact import load_artifact
from offramp.engine import open_runtime
from offramp.protocol.form import Form


class Network:
    """A saved model's backbone.

    Args:
        name: of the model.
        threads: to compute with.
    """

    def __init__(self, name: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = load_artifact(name).model.eval()
        self.form = Form(self.model, 64)
        self._call = open_runtime("torch").static(self.model.static, self.model.input.example(2))

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """What it says, ``(B, num_outputs)``."""
        with torch.inference_mode():
            return self._call(x)

    def label(self, output: torch.Tensor) -> str:
        """The class of one output."""
        assert self.model.classes is not None
        return self.model.classes[int(self.model.task.answer(output[None])[0])]
