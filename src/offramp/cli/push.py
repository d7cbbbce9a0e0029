"""offramp push: a saved model to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from offramp.cli._shared import Json, Model, PolicyFile, emit, out, ready

EXAMPLE = "offramp push my-model owner/name --private"


def command(
    model: Model,
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; it is made where there is none.")],
    policy: PolicyFile = None,
    private: Annotated[bool, typer.Option("--private", help="Only its owner sees a new repository.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Offramp model",
    json: Json = False,
) -> None:
    """Upload a saved model with its policy, tables and card; every verb then takes it as hf-hub:OWNER/NAME."""
    from offramp.artifact.hub import push
    from offramp.policies import load_policy

    artifact = ready(model, "cpu", 0)
    rule = artifact.policy if policy is None else load_policy(policy)
    stored = (rule, artifact.table, artifact.costs, artifact.record)
    address = push(artifact.model, repository, *stored, private=private, message=message)
    if json:
        emit({"model": str(model), "repository": repository, "address": address})
    else:
        out.print(f"{model} is at {address}; load it as hf-hub:{repository}")
