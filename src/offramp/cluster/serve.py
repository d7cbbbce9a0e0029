"""A service with several replicas: Ray Serve routes and scales, each replica schedules as ``offramp serve`` does.

``serve run`` takes ``offramp.cluster.serve:build``, with the fields of ``Args`` as its arguments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from offramp._device import device_named
from offramp.artifact import load_artifact
from offramp.engine import open_runtime
from offramp.errors import UsageError
from offramp.policies import Policy, load_policy, policy_from_json
from offramp.protocol import RESERVE
from offramp.protocol.http import Limits, build_app
from offramp.serving import Service, ladder

try:
    from ray import serve
    from ray.serve import Application
except ImportError as error:
    raise UsageError("many machines need more packages: pip install 'offramp[ray]'") from error


class Args(BaseModel):
    """What a replica serves; the names and meanings are those of ``offramp serve``.

    Args:
        model: the folder of a saved model, or a name from ``offramp list models``; every replica reads it.
        name: the model's name in the paths.
        policy: a policy file instead of the model's own.
        strictest: the threshold where there is little to do.
        batch: samples in a batch.
        queue: samples inside at once, in a replica.
        seconds: the deadline of a request that says none, and the latest.
        precision: ``fp32`` or ``bf16``.
        device: as torch has it.
        threads: of a replica.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    name: str | None = None
    policy: str | None = None
    strictest: float | None = None
    batch: PositiveInt = 16
    queue: PositiveInt = 512
    seconds: PositiveFloat = 30.0
    precision: str = "fp32"
    device: str = "auto"
    threads: PositiveInt = 1


@serve.deployment(max_ongoing_requests=256)
@serve.ingress()
class Served:
    """A replica: a scheduler of its own, and the Open Inference Protocol over HTTP.

    ``user_config`` may hold ``policy``, an object as ``offramp calibrate`` writes it: replicas take it up without a
    restart, from the next batch on.
    """

    def __init__(self, args: Args) -> None:
        torch.set_num_threads(args.threads)
        artifact = load_artifact(args.model)
        artifact.model.to(device_named(args.device))
        policy = artifact.policy if args.policy is None else load_policy(Path(args.policy))
        if policy is None:
            raise UsageError("this model has no policy: give one, or run offramp calibrate first")
        self.args = args
        self.levels = self._levels(policy)
        runtime = open_runtime("torch", args.precision, args.threads)
        self.service = Service(
            artifact.model, self.levels[0], self.levels[1:], runtime, args.batch, args.queue, RESERVE
        )

    def __serve_build_asgi_app__(self) -> Any:
        name = self.args.name or Path(self.args.model).name
        return build_app(self.service, name, Limits(seconds=self.args.seconds), os.environ.get("OFFRAMP_KEY"))

    def reconfigure(self, user_config: Mapping[str, Any] | None) -> None:
        """Another policy, or the first one again where none is said."""
        said = (user_config or {}).get("policy")
        levels = self.levels if said is None else self._levels(policy_from_json(said))
        self.service.set_policies(levels[0], levels[1:])

    def check_health(self) -> None:
        """Raise where the replica has to be replaced."""
        if not self.service.alive:
            raise RuntimeError("nothing is computed any more")

    def _levels(self, policy: Policy) -> tuple[Policy, ...]:
        return (policy,) if self.args.strictest is None else tuple(ladder(policy, self.args.strictest))


def build(args: Args | dict[str, Any]) -> Application:
    """What ``serve run offramp.cluster.serve:build model=my-model`` runs.

    How many replicas there are, with how many processors, and the ``user_config`` stand in Ray's own configuration.
    """
    deployment: Any = Served
    found: Application = deployment.bind(Args.model_validate(args))
    return found
