"""The static model behind LitServe, with its batching; who has waited longer than the deadline is not computed.

``python -m benchmarks.serving.lit MODEL PORT THREADS BATCH SECONDS``
"""

from __future__ import annotations

import base64
import gc
import sys
from typing import Any

import litserve
import torch

from benchmarks.serving.network import Network


class Static(litserve.LitAPI):
    """Requests of one file in JSON."""

    def __init__(self, name: str, threads: int, largest: int) -> None:
        super().__init__(max_batch_size=largest, batch_timeout=0.0, api_path="/v2/models/m/infer")
        self.name, self.threads = name, threads

    def setup(self, device: str) -> None:
        """Load the network, in the worker."""
        self.network = Network(self.name, self.threads)
        gc.freeze()  # as our server does

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe takes an annotation for a query
        """A prepared sample, ``(1, …)``, from a request's JSON."""
        (said,) = request["inputs"]
        return self.network.form.batch({said["name"]: [base64.b64decode(file) for file in said["data"]]})

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Samples together."""
        return torch.cat(inputs)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """What the network says, ``(B, num_outputs)``."""
        return self.network.outputs(x)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """One output for each sample."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """As the Open Inference Protocol has it."""
        return {
            "outputs": [
                {"name": "output", "data": output.tolist()},
                {"name": "label", "data": [self.network.label(output)]},
            ]
        }


if __name__ == "__main__":
    name, (port, threads, largest) = sys.argv[1], map(int, sys.argv[2:5])
    server = litserve.LitServer(
        Static(name, threads, largest),
        accelerator="cpu",
        timeout=float(sys.argv[5]),
        healthcheck_path="/v2/health/ready",
    )
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False, num_api_servers=1)
