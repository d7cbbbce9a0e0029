"""offramp evaluate: what a model is worth on test data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import (
    Device,
    Json,
    Model,
    OneThreshold,
    Precision,
    RuntimeName,
    Threads,
    between,
    chosen_policy,
    emit,
    exit_names,
    metric,
    out,
    ready,
    table,
)

if TYPE_CHECKING:
    from offramp.artifact import Artifact

EXAMPLE = "offramp evaluate my-model fashion_mnist.npz"


def command(
    model: Model,
    data: Annotated[str, typer.Argument(help="A folder, an .npz file, torchvision/NAME, or digits.")],
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    policy: Annotated[
        list[Path] | None, typer.Option(help="A policy file to use instead of the model's own; several are compared.")
    ] = None,
    threshold: OneThreshold = None,
    batch: Annotated[int, typer.Option(help="The batch that the measured speed-up is timed with.", min=1)] = 64,
    runtime: RuntimeName = "torch",
    precision: Precision = "fp32",
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Accuracy, exit shares and the three speed-ups on a split, with 95 % bootstrap intervals."""
    from offramp.engine import open_runtime
    from offramp.pipeline import evaluate, evaluate_each, open_for

    files = policy or []
    artifact = ready(model, device, threads)
    computes = open_runtime(runtime, precision, threads) if (runtime, precision) != ("torch", "fp32") else None
    if len(files) < 2:
        rule = chosen_policy(artifact, files[0] if files else None, threshold)
        splits = open_for(artifact, data)
        result = {"model": str(model), **evaluate(artifact, rule, splits, split, batch, True, computes)}
        if json:
            emit(result)
        else:
            show(artifact, result)
        return
    policies = {str(file): chosen_policy(artifact, file, threshold) for file in files}
    results = evaluate_each(artifact, policies, open_for(artifact, data), split, batch, True, computes)
    if json:
        emit({"model": str(model), "policies": results})
    else:
        compare(artifact, results)


def compare(artifact: Artifact, results: dict[str, dict[str, Any]]) -> None:
    """Several policies in one table for people."""
    task = artifact.model.task
    rows = []
    for name, result in results.items():
        dynamic, policy = result["dynamic"], result["policy"]
        promise = policy.get("provenance", {}).get("guarantee", {})
        rows.append(
            [
                f"{name}  {policy['policy']}",
                metric(task, dynamic["value"]),
                between(task, dynamic["interval"]),
                f"{dynamic['speedup']['layers']:.2f}",
                f"{dynamic['speedup']['macs']:.2f}",
                f"{dynamic['speedup']['measured']:.2f}",
                promise.get("method", "no") if promise.get("method") != "naive" else "no",
            ]
        )
    first = next(iter(results.values()))
    title = f"{first['samples']} samples of {first['data']}, {first['split']} split; "
    title += f"static {metric(task, first['static']['value'])}"
    columns = ["policy", task.metric, "95 % interval", "layers", "MACs", "measured", "guaranteed"]
    table(title, columns, rows)


def show(artifact: Artifact, result: dict[str, Any]) -> None:
    """The result for people."""
    task = artifact.model.task
    static, dynamic = result["static"], result["dynamic"]
    speedup, intervals = dynamic["speedup"], dynamic["speedup_intervals"]
    rows = [
        [
            f"{name}  {e['head']}",
            metric(task, e["value"]),
            f"{e['macs'] / 1e6:.1f}",
            f"{100 * share:.1f} %  " + "█" * round(20 * share) + "·" * (20 - round(20 * share)),
        ]
        for name, e, share in zip(
            exit_names(artifact.model.chain), result["exits"], dynamic["exit_shares"], strict=True
        )
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
            f"measured speed-up, batch {result['timing']['batch']}, {result['threads']} threads",
            f"{speedup['measured']:.2f}",
            "{:.2f} to {:.2f}".format(*intervals["measured_range"]),
        ],
    ]
    table("", ["", "value", "95 % interval; range over rounds for measured"], rows)
    out.print(f"static {result['timing']['static_ms']:.2f} ms, dynamic {result['timing']['dynamic_ms']:.2f} ms a batch")
