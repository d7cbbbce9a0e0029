"""offramp calibrate: choose a policy for a goal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import (
    Device,
    Json,
    Model,
    Precision,
    RuntimeName,
    emit,
    err,
    file_runtime,
    is_file,
    metric,
    out,
    ready,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from offramp.policies import Policy
    from offramp.tasks import Task
    from offramp.types import CostTable, ExitTable

    Source = tuple[Task, tuple[int, ...], ExitTable, CostTable, Callable[[Policy], None]]

EXAMPLE = "offramp calibrate my-model --max-drop 0.5"
_UNITS = {"s": ("seconds", 1.0), "ms": ("seconds", 1e-3), "macs": ("macs", 1.0), "mmacs": ("macs", 1e6)}
_UNITS |= {"gmacs": ("macs", 1e9)}


def command(
    model: Model,
    data: Annotated[
        str | None, typer.Argument(help="Data whose validation split to use; the model's own table if not given.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Lose at most this much: points of accuracy, or the metric's own unit.")
    ] = None,
    target_speedup: Annotated[float | None, typer.Option(help="At least this speed-up, in --unit.")] = None,
    max_cost: Annotated[str | None, typer.Option(help="No sample costs more: 3ms, 50MMACs, 1.2GMACs.")] = None,
    risk: Annotated[
        float | None, typer.Option(help="Wrong because of leaving early in at most this share of cases, as 0.01.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="How sure the promise about --risk is.")] = 0.95,
    method: Annotated[str, typer.Option(help="How --risk is bounded: ucb, ltt, crc, or naive (no promise).")] = "ucb",
    loss: Annotated[str, typer.Option(help="What --risk counts: disagreement, gap, brier.")] = "disagreement",
    rule: Annotated[
        str, typer.Option(help="threshold, exit-distribution, or another of offramp list policies.")
    ] = "threshold",
    score: Annotated[
        str | None, typer.Option(help="confidence, margin, entropy, power-entropy, energy; change.")
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="One threshold for all exits.")] = False,
    unit: Annotated[str, typer.Option(help="What cheap means: macs or seconds.")] = "macs",
    runtime: RuntimeName = "torch",
    precision: Precision = "fp32",
    save_to: Annotated[Path | None, typer.Option("--out", help="Write the policy here, not into the model.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw what can be had, and what was chosen.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Choose a policy for a goal on validation data, and store it with the model.

    An exported file is calibrated as its runtime computes it, which is what a quantised one needs.
    """
    from offramp.calibration import calibrate
    from offramp.errors import UsageError
    from offramp.policies import policy_to_json, save_policy

    if unit not in ("macs", "seconds"):
        raise UsageError(f"unit is {unit!r}; it is macs or seconds")
    limit, unit = (None, unit) if max_cost is None else _cost(max_cost)
    source = _of_file if is_file(model) else _of_artifact
    task, after, exits, costs, keep = source(model, data, save_to, unit, runtime, precision, device)
    policy: Any = calibrate(
        exits,
        costs,
        max_drop=max_drop / 100 if max_drop is not None and task.unit == "%" else max_drop,
        target_speedup=target_speedup,
        max_cost=limit,
        risk=risk,
        confidence=confidence,
        method=method,
        loss=loss,
        unit=unit,
        score=score,
        shared=shared,
        rule=rule,
    )
    if save_to is not None:
        save_policy(policy, save_to)
    else:
        keep(policy)
    if plot is not None:
        _draw(exits, costs, policy, task, unit, plot)
    if json:
        emit(policy_to_json(policy))
        return
    _show(policy, after, task, unit)


def _of_artifact(
    model: Path, data: str | None, save_to: Path | None, unit: str, runtime: str, precision: str, device: str
) -> Source:
    from offramp.artifact import save
    from offramp.cost import profile
    from offramp.engine import open_runtime
    from offramp.errors import UsageError
    from offramp.pipeline import open_for, tabulate_samples
    from offramp.registry import MODELS

    if save_to is None and not model.exists() and str(model) in MODELS:
        raise UsageError(f"{model} is the model in the box, which stays as it is: say with --out where the policy goes")
    artifact = ready(model, device, 0)
    exits = artifact.table
    if data is not None:
        splits = open_for(artifact, data)
        computes = None if (runtime, precision) == ("torch", "fp32") else open_runtime(runtime, precision)
        exits = tabulate_samples(artifact.model, splits, "validation", progress=True, runtime=computes)
    elif (runtime, precision) != ("torch", "fp32"):
        raise UsageError(f"the model's own table is of torch in fp32: name the data to calibrate {runtime} on")
    if exits is None:
        raise UsageError("this model holds no validation table: name the data to calibrate on")
    costs = artifact.costs
    if costs is None or (unit == "seconds" and costs.seconds is None):
        costs = profile(artifact.model)

    def keep(policy: Policy) -> None:
        save(artifact.model, model, policy, exits, costs, artifact.record)

    return artifact.model.task, artifact.model.after, exits, costs, keep


def _of_file(
    model: Path, data: str | None, save_to: Path | None, unit: str, runtime: str, precision: str, device: str
) -> Source:
    from offramp.engine.tabulate import tabulate_file
    from offramp.errors import UsageError
    from offramp.export.metadata import store_policy
    from offramp.pipeline import file_batches
    from offramp.tasks import get_task
    from offramp.types import CostTable

    if data is None:
        raise UsageError("a file holds no table: name the data to calibrate it on")
    if unit != "macs":
        raise UsageError("a file knows its MACs only: --unit seconds needs the saved model")
    computes = file_runtime(runtime, precision, 0)
    session = computes.open(model)
    batches, about = file_batches(session.file.about, data, "validation", progress=True)
    exits = tabulate_file(session, computes, batches, about)
    costs = CostTable.from_json(session.file.about["costs"])
    return get_task(exits.task), exits.after, exits, costs, lambda policy: store_policy(model, policy)


def _cost(text: str) -> tuple[float, str]:
    from offramp.errors import UsageError

    found = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([a-zA-Z]+)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise UsageError(f"--max-cost is {text!r}; it is a number and a unit, such as 3ms, 0.5s, 50MMACs or 1.2GMACs")
    unit, factor = _UNITS[found[2].lower()]
    try:
        return float(found[1]) * factor, unit
    except ValueError:
        raise UsageError(f"--max-cost is {text!r}, and {found[1]!r} is no number") from None


def _show(policy: Any, after: tuple[int, ...], task: Task, unit: str) -> None:
    about = policy.provenance
    expected = about["expected"]
    thresholds = dict(zip(policy.heads, getattr(policy, "thresholds", ()), strict=False))
    if hasattr(policy, "temperatures"):
        thresholds = dict(enumerate(policy.thresholds))
    rows = []
    for k, share in enumerate(expected["exit_shares"]):
        final = k == len(expected["exit_shares"]) - 1
        value = "" if final or k not in policy.heads or k not in thresholds else f"{thresholds[k]:.4f}"
        off = "off" if not final and k not in policy.heads else value
        rows.append([f"{after[k]} (final)" if final else str(after[k]), off, f"{100 * share:.1f} %"])
    title = f"{about.get('rule', 'threshold')} on {policy.score}, from {about['samples']} samples"
    table(title, ["exit after block", "threshold", "leave here"], rows)
    low, high = (metric(task, bound) for bound in expected["intervals"][task.metric])
    out.print(
        f"on these samples: {task.metric} {metric(task, expected[task.metric])} ({low} to {high}) "
        f"(static {metric(task, expected['static_' + task.metric])}), "
        f"{unit if unit == 'seconds' else 'MACs'} speed-up {expected[unit + '_speedup']:.2f}"
    )
    if "guarantee" in about:
        out.print(about["guarantee"]["sentence"])


def _draw(exits: ExitTable, costs: CostTable, policy: Policy, task: Task, unit: str, path: Path) -> None:
    from offramp.calibration import columns_of, frontier
    from offramp.report import draw_frontier

    columns = columns_of(exits, costs, unit, policy.score, task=task)
    sign = 1.0 if task.higher_is_better else -1.0
    points = [(columns.static / p.cost, sign * p.quality) for p in frontier(columns)]
    expected = policy.provenance["expected"]  # type: ignore[attr-defined]
    chosen = (expected[f"{unit}_speedup"], expected[task.metric])
    draw_frontier(points, sign * float(columns.quality[-1].mean()), chosen, task, path, unit)
    err.print(f"drawn to {path}")
