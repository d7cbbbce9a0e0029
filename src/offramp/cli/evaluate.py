"""offramp evaluate: what a model is worth on test data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import (
    Device,
    Json,
    Model,
    OneThreshold,
    PolicyFile,
    Threads,
    between,
    chosen_policy,
    emit,
    metric,
    out,
    ready,
    table,
)

if TYPE_CHECKING:
    from offramp.artifact import Artifact
    from offramp.data import Splits
    from offramp.policies import Policy

EXAMPLE = "offramp evaluate my-model fashion_mnist.npz"


def command(
    model: Model,
    data: Annotated[str, typer.Argument(help="A folder, an .npz file, torchvision/NAME, or digits.")],
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    batch: Annotated[int, typer.Option(help="The batch that the measured speed-up is timed with.", min=1)] = 64,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Accuracy, exit shares and the three speed-ups on a split, with 95 % bootstrap intervals."""
    artifact = ready(model, device, threads)
    rule = chosen_policy(artifact, policy, threshold)
    splits = open_for(artifact, data)
    result = {"model": str(model), **evaluate_split(artifact, rule, splits, split, batch)}
    if json:
        emit(result)
    else:
        show(artifact, result)


def open_for(artifact: Artifact, data: str) -> Splits:
    """The splits of a data set, cut as they were for the training of this model."""
    from offramp.data import open_splits
    from offramp.errors import DataError

    recipe = artifact.record.get("recipe", {})
    splits = open_splits(data, recipe.get("data", {}).get("validation"), recipe.get("seed", 0))
    known = artifact.model.classes
    if known is not None and splits.classes is not None and splits.classes != known:
        raise DataError(f"{data} has classes {', '.join(splits.classes)}; the model knows {', '.join(known)}")
    return splits


def evaluate_split(artifact: Artifact, policy: Policy, splits: Splits, split: str, batch: int) -> dict[str, Any]:
    """The result that ``--json`` prints, but for the model's name."""
    import torch

    from offramp._progress import progress_bar
    from offramp.cost import profile
    from offramp.data import loader
    from offramp.engine import measure
    from offramp.errors import UsageError
    from offramp.pipeline import tabulate_samples
    from offramp.registry import unknown
    from offramp.report import evaluate_table
    from offramp.versions import host, versions

    names = ("test", "validation", "train")
    if split not in names:
        raise UsageError(unknown("split", split, names))
    samples = getattr(splits, split)
    model = artifact.model
    table = tabulate_samples(model, samples, splits.record, split, progress=True)
    result = evaluate_table(table, artifact.costs or profile(model, repeats=0), policy, model.task)
    place = next(model.parameters()).device
    pieces = []
    for x, _ in loader(samples, model.data_config, batch):
        pieces.append((x.to(place), policy))
        if len(pieces) * batch >= 512:
            break
    rounds = 5
    with progress_bar("timing", rounds + 1) as bar:
        timed = measure(model, pieces, rounds, bar)
    result["dynamic"]["speedup"]["measured"] = timed.speedup
    result["dynamic"]["speedup_intervals"]["measured_range"] = timed.row()["measured_speedup_range"]
    return {
        "data": splits.record["source"],
        "split": split,
        **result,
        "batch": batch,
        "timing": timed.row(),
        "runtime": "torch",
        "precision": "fp32",
        "threads": torch.get_num_threads(),
        "host": host(),
        "versions": versions(),
    }


def show(artifact: Artifact, result: dict[str, Any]) -> None:
    """The result for people."""
    task = artifact.model.task
    static, dynamic = result["static"], result["dynamic"]
    speedup, intervals = dynamic["speedup"], dynamic["speedup_intervals"]
    rows = [
        [
            f"{e['after']}  {e['head']}",
            metric(task, e["value"]),
            f"{e['macs'] / 1e6:.1f}",
            f"{100 * share:.1f} %  " + "█" * round(20 * share) + "·" * (20 - round(20 * share)),
        ]
        for e, share in zip(result["exits"], dynamic["exit_shares"], strict=True)
    ]
    title = f"{result['samples']} samples of {result['data']}, {result['split']} split"
    table(title, ["exit after block", f"{task.metric} alone", "MMACs to here", "leave here"], rows)
    rows = [
        [f"{task.metric}, static backbone", metric(task, static["value"]), between(task, static["interval"])],
        [f"{task.metric}, dynamic model", metric(task, dynamic["value"]), between(task, dynamic["interval"])],
        ["change", metric(task, dynamic["change"]), between(task, dynamic["change_interval"])],
        ["layers speed-up", f"{speedup['layers']:.2f}", "{:.2f} to {:.2f}".format(*intervals["layers"])],
        ["MACs speed-up", f"{speedup['macs']:.2f}", "{:.2f} to {:.2f}".format(*intervals["macs"])],
        [
            f"measured speed-up, batch {result['batch']}, {result['threads']} threads",
            f"{speedup['measured']:.2f}",
            "{:.2f} to {:.2f}".format(*intervals["measured_range"]),
        ],
    ]
    table("", ["", "value", "95 % interval; range over rounds for measured"], rows)
    out.print(f"static {result['timing']['static_ms']:.2f} ms, dynamic {result['timing']['dynamic_ms']:.2f} ms a batch")
