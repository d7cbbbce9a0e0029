"""offramp calibrate: choose thresholds for a goal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli._shared import Device, Json, Model, emit, metric, out, ready, table

EXAMPLE = "offramp calibrate my-model --max-drop 0.5"


def command(
    model: Model,
    data: Annotated[
        str | None, typer.Argument(help="Data whose validation split to use; the model's own table if not given.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Lose at most this much: points of accuracy, or the metric's own unit.")
    ] = None,
    target_speedup: Annotated[float | None, typer.Option(help="At least this MACs speed-up.")] = None,
    unit: Annotated[str, typer.Option(help="What cheap means: macs or seconds.")] = "macs",
    save_to: Annotated[Path | None, typer.Option("--out", help="Write the policy here, not into the model.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Choose thresholds on validation data and store them with the model."""
    from offramp.artifact import save
    from offramp.cost import profile
    from offramp.errors import UsageError
    from offramp.pipeline import open_for, tabulate_samples
    from offramp.policies import calibrate, policy_to_json, save_policy
    from offramp.registry import MODELS

    if unit not in ("macs", "seconds"):
        raise UsageError(f"unit is {unit!r}; it is macs or seconds")
    if save_to is None and not model.exists() and str(model) in MODELS:
        raise UsageError(f"{model} is the model in the box, which stays as it is: say with --out where the policy goes")
    artifact = ready(model, device, 0)
    exits = artifact.table
    if data is not None:
        splits = open_for(artifact, data)
        exits = tabulate_samples(artifact.model, splits, "validation", progress=True)
    if exits is None:
        raise UsageError("this model holds no validation table: name the data to calibrate on")
    costs = artifact.costs or profile(artifact.model)
    task = artifact.model.task
    drop = max_drop / 100 if max_drop is not None and task.unit == "%" else max_drop
    policy = calibrate(exits, costs, max_drop=drop, target_speedup=target_speedup, unit=unit)
    if save_to is not None:
        save_policy(policy, save_to)
    else:
        save(artifact.model, model, policy, exits, costs, artifact.record)
    if json:
        emit(policy_to_json(policy))
        return
    expected = policy.provenance["expected"]
    rows = [
        [str(after), "off" if t is None else f"{t:.4f}", f"{100 * share:.1f} %"]
        for after, t, share in zip(artifact.model.after, policy.thresholds, expected["exit_shares"], strict=False)
    ]
    rows.append([f"{artifact.model.depth} (final)", "", f"{100 * expected['exit_shares'][-1]:.1f} %"])
    table(f"{policy.score} thresholds from {len(exits)} samples", ["exit after block", "threshold", "leave here"], rows)
    out.print(
        f"on these samples: {task.metric} {metric(task, expected[task.metric])} "
        f"(static {metric(task, expected['static_' + task.metric])}), "
        f"{unit if unit == 'seconds' else 'MACs'} speed-up {expected[unit + '_speedup']:.2f}"
    )
