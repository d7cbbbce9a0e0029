"""What verbs have in common: options, and how results are shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from offramp.artifact import Artifact
    from offramp.engine.runtime import FileRuntime
    from offramp.policies import Policy
    from offramp.tasks import Task
    from offramp.types import Chain

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")]
Model = Annotated[Path, typer.Argument(help="The folder of a saved model, or a name from offramp list models.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
RuntimeName = Annotated[str, typer.Option("--runtime", help="A name from offramp list runtimes.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16; not every runtime has both.")]
Threads = Annotated[int, typer.Option(help="Threads to compute with; 0 leaves it to the runtime.", min=0)]

# a pipe has no width of its own; lines of a table should not be cut for it
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False)


def emit(result: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(result, indent=1))


def table(title: str, columns: list[str], rows: list[list[str]], numbers: bool = True) -> None:
    """A table on stdout; the first column is text, and so are the others unless they are numbers."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        grid.add_column(column, justify="right" if numbers and i else "left")
    for row in rows:
        grid.add_row(*row)
    out.print(grid)


def metric(task: Task, value: float) -> str:
    """A metric as people write it: shares in per cent."""
    return f"{100 * value:.2f} %" if task.unit == "%" else f"{value:.3f}"


def between(task: Task, interval: list[float]) -> str:
    """An interval of a metric."""
    return f"{metric(task, interval[0])} to {metric(task, interval[1])}"


def ready(model: Path, device: str, threads: int) -> Artifact:
    """The artifact at a path, on a device, with threads set. Raises ``UsageError`` for a GPU where there is none."""
    import torch

    from offramp._device import device_named
    from offramp.artifact import load_artifact

    place = device_named(device)
    if threads:
        torch.set_num_threads(threads)
    artifact = load_artifact(model)
    artifact.model.to(place)
    return artifact


def chosen_policy(artifact: Artifact, file: Path | None, threshold: float | None) -> Policy:
    """The policy to run with: from a file, one threshold for all exits, or the artifact's own."""
    from offramp.errors import UsageError
    from offramp.policies import check_fits, load_policy
    from offramp.policies.threshold import Threshold

    if file is not None and threshold is not None:
        raise UsageError("give --policy or --threshold, not both")
    if file is not None:
        policy = load_policy(file)
        check_fits(
            policy,
            len(artifact.model.exits),
            artifact.model.num_outputs,
            artifact.model.task,
            artifact.model.chain.num_paths,
        )
        return policy
    if threshold is not None:
        return Threshold((threshold,) * len(artifact.model.exits), artifact.model.task.scores[0])
    if artifact.policy is None:
        raise UsageError("this model has no policy: give --threshold, or run offramp calibrate first")
    return artifact.policy


def chosen_numbers(own: Policy, file: Path | None, threshold: float | None) -> Policy:
    """The policy to run an exported file with: from another file, one threshold for all exits, or the file's own."""
    from dataclasses import replace

    from offramp.errors import UsageError
    from offramp.policies import load_policy
    from offramp.policies.threshold import Threshold

    if threshold is None:
        return own if file is None else load_policy(file)
    if file is not None or not isinstance(own, Threshold):
        raise UsageError("--threshold is for a file with a threshold policy, and not beside --policy")
    return replace(own, thresholds=(threshold,) * len(own.thresholds), provenance={})


def is_file(model: Path) -> bool:
    """Whether a model is an exported file rather than the folder of a saved one."""
    return model.suffix == ".onnx"


def file_runtime(name: str, precision: str, threads: int) -> FileRuntime:
    """A runtime that opens exported files. Raises ``UsageError`` for one that does not."""
    from offramp.engine import FileRuntime, open_runtime
    from offramp.errors import UsageError

    runtime = open_runtime("onnxruntime" if name == "torch" else name, precision, threads)
    if not isinstance(runtime, FileRuntime):
        raise UsageError(f"the runtime {name!r} opens no files; onnxruntime and openvino do")
    return runtime


PolicyFile = Annotated[Path | None, typer.Option("--policy", help="A policy file to use instead of the model's own.")]
OneThreshold = Annotated[
    float | None, typer.Option("--threshold", help="One threshold for all exits instead of the model's policy.")
]


def exit_names(chain: Chain) -> list[str]:
    """What to call each exit: the block that it reads, and on which path where there are several."""
    if chain.num_paths == 1:
        return [str(after) for after in chain.after]
    return [f"{after} of path {path}" for after, path in zip(chain.after, chain.paths, strict=True)]
