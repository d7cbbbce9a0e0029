"""offramp convert: weights of other projects as a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli._shared import Json, emit, out

EXAMPLE = "offramp convert lgvit LGViT-ViT-Cifar100 my-model"


def command(
    form: Annotated[str, typer.Argument(help="What the weights are: lgvit.")],
    folder: Annotated[Path, typer.Argument(help="The local folder that holds them.")],
    to: Annotated[Path, typer.Argument(help="Where the saved model goes.")],
    json: Json = False,
) -> None:
    """Turn a released checkpoint into a saved model; only tensors are read, nothing in it can run."""
    from offramp import convert
    from offramp.artifact import refuse_foreign, save
    from offramp.errors import UsageError
    from offramp.registry import unknown

    forms = {"lgvit": convert.lgvit}
    if form not in forms:
        raise UsageError(unknown("form of weights", form, forms))
    refuse_foreign(to)
    model, policy = forms[form](folder)
    save(model, to, policy, record={"converted": {"form": form, "folder": folder.name}})
    if json:
        emit({"model": str(to), "exits": list(model.after[:-1]), "heads": list(model.head_names[:-1])})
    else:
        out.print(f"saved to {to}: exits after blocks {', '.join(map(str, model.after[:-1]))} of {model.depth}")
