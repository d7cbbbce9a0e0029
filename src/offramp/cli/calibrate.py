"""offramp calibrate: choose a policy for a goal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from offramp.cli._shared import (
    Device,
    Json,
    Model,
    Precision,
    RuntimeName,
    Threads,
    emit,
    err,
    exit_names,
    file_runtime,
    is_file,
    metric,
    out,
    ready,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from offramp.policies import Policy
    from offramp.tasks import Task
    from offramp.types import Chain, CostTable, ExitTable

    Source = tuple[Task, ExitTable, CostTable, Callable[[Policy], None]]

EXAMPLE = "offramp calibrate my-model --max-drop 0.5"
_UNITS = {"s": ("seconds", 1.0), "ms": ("seconds", 1e-3), "macs": ("macs", 1.0), "mmacs": ("macs", 1e6)}
_UNITS |= {"gmacs": ("macs", 1e9)}
REPEATS = 40
"""How often each run is timed: two in forty are later than the 95th percentile."""


class Place(NamedTuple):
    """Where the policy will run."""

    runtime: str
    precision: str
    threads: int
    device: str


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
    confidence: Annotated[
        float | None, typer.Option(help="How sure the promise about --risk is.", show_default="0.95")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="How --risk is bounded: ucb, ltt, crc, or naive (no promise).", show_default="ucb"),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="What --risk counts: disagreement, gap, brier; off-by-3, moved-by-3 for numbers.",
            show_default="disagreement",
        ),
    ] = None,
    rule: Annotated[
        str, typer.Option(help="threshold, exit-distribution, or another of offramp list policies.")
    ] = "threshold",
    score: Annotated[
        str | None, typer.Option(help="confidence, margin, entropy, power-entropy, energy; change.")
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="One threshold for all exits.")] = False,
    unit: Annotated[
        str | None, typer.Option(help="What cheap means: macs or seconds.", show_default="macs, or that of --max-cost")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time the model here and now; for seconds.")] = False,
    runtime: RuntimeName = "torch",
    precision: Precision = "fp32",
    threads: Threads = 0,
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

    limit, unit = _unit(max_cost, unit)
    if measure and unit != "seconds":
        raise UsageError("--measure times the model, and this goal counts MACs: say --unit seconds, or leave it out")
    place = Place(runtime, precision, threads, device)
    source = _of_file if is_file(model) else _of_artifact
    task, exits, costs, keep = source(model, data, save_to, unit, measure, place)
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
    _show(policy, exits.chain, task, unit)


def _of_artifact(model: Path, data: str | None, save_to: Path | None, unit: str, measure: bool, place: Place) -> Source:
    from offramp.artifact import save
    from offramp.bench import profile_in
    from offramp.calibration.conditions import check_seconds, differences
    from offramp.cost import profile
    from offramp.engine import FileRuntime, open_runtime
    from offramp.errors import UsageError
    from offramp.pipeline import open_for, tabulate_samples
    from offramp.registry import MODELS
    from offramp.versions import host

    fixed = (
        "the model in the box" if str(model) in MODELS else "on the hub" if str(model).startswith("hf-hub:") else None
    )
    if save_to is None and not model.exists() and fixed is not None:
        raise UsageError(f"{model} is {fixed}, which stays as it is: say with --out where the policy goes")
    artifact = ready(model, place.device, place.threads)
    computes = open_runtime(place.runtime, place.precision, place.threads)
    exits = artifact.table
    if data is None:
        if exits is None:
            raise UsageError("this model holds no validation table: name the data to calibrate on")
        own = tuple(exits.provenance.get(key, usual) for key, usual in (("runtime", "torch"), ("precision", "fp32")))
        if own != (computes.name, computes.precision):
            wanted = f"{computes.name} in {computes.precision}"
            raise UsageError(
                f"the model's own table is of {own[0]} in {own[1]}: name the data to calibrate {wanted} on"
            )
    costs = artifact.costs or profile(artifact.model, repeats=0)
    stored = costs
    if unit == "seconds":
        device = "cpu" if isinstance(computes, FileRuntime) else str(next(artifact.model.parameters()).device)
        here = {"runtime": computes.name, "precision": computes.precision, "threads": computes.threads}
        here |= {"device": device, "host": host()}
        if measure:
            with _timing() as tick:
                costs = profile_in(computes, artifact.model, repeats=REPEATS, tick=tick)
        check_seconds(costs, here)
        if stored.seconds is None or not differences(stored, here):
            stored = costs
    if data is not None:
        splits = open_for(artifact, data)
        in_another = None if (computes.name, computes.precision) == ("torch", "fp32") else computes
        exits = tabulate_samples(artifact.model, splits, "validation", progress=True, runtime=in_another)
    assert exits is not None

    def keep(policy: Policy) -> None:
        save(artifact.model, model, policy, exits, stored, artifact.record)

    return artifact.model.task, exits, costs, keep


def _of_file(model: Path, data: str | None, save_to: Path | None, unit: str, measure: bool, place: Place) -> Source:
    from offramp.bench import profile_file
    from offramp.engine.tabulate import tabulate_file
    from offramp.errors import UsageError
    from offramp.export.metadata import store_policy
    from offramp.pipeline import file_batches
    from offramp.tasks import get_task
    from offramp.types import CostTable

    if data is None:
        raise UsageError("a file holds no table: name the data to calibrate it on")
    if unit == "seconds" and not measure:
        raise UsageError("a file knows its MACs and no seconds: say --measure to time it here")
    computes = file_runtime(place.runtime, place.precision, place.threads)
    session = computes.open(model)
    if session.file.about["fixed"]:
        raise UsageError(
            f"{model} holds only the exits that its policy asks: calibrate a file with all of them, --out policy.json, "
            "and export --fixed again with that --policy"
        )
    if measure:
        with _timing() as tick:
            costs = profile_file(session, computes, repeats=REPEATS, tick=tick)
    else:
        costs = CostTable.from_json(session.file.about["costs"])
    batches, about = file_batches(session.file, data, "validation", progress=True)
    exits = tabulate_file(session, computes, batches, about)
    return get_task(exits.task), exits, costs, lambda policy: store_policy(model, policy)


def _timing() -> AbstractContextManager[Callable[[int], None]]:
    """A bar for ``REPEATS`` timed repeats."""
    from offramp._progress import progress_bar

    return progress_bar("timing", REPEATS + 1)


def _unit(max_cost: str | None, unit: str | None) -> tuple[float | None, str]:
    """The limit of ``--max-cost``, and what it and ``--unit`` count."""
    from offramp.errors import UsageError

    if unit not in (None, "macs", "seconds"):
        raise UsageError(f"unit is {unit!r}; it is macs or seconds")
    limit, own = (None, unit) if max_cost is None else _cost(max_cost)
    if unit is not None and unit != own:
        raise UsageError(f"--max-cost {max_cost} is in {own}, and --unit says {unit}: leave --unit out")
    return limit, own or "macs"


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


def _show(policy: Any, chain: Chain, task: Task, unit: str) -> None:
    from offramp.policies import Routed, inner_of

    inner: Any = inner_of(policy)
    about, expected = policy.provenance, policy.provenance["expected"]
    thresholds: dict[int, float] = dict(zip(inner.heads, getattr(inner, "thresholds", ()), strict=False))
    if hasattr(inner, "temperatures"):
        thresholds = dict(enumerate(inner.thresholds))
    rows = []
    for k, (name, share) in enumerate(zip(exit_names(chain), expected["exit_shares"], strict=True)):
        final = k == len(chain.after) - 1
        value = "" if final or k not in inner.heads or k not in thresholds else f"{thresholds[k]:.4f}"
        off = "off" if not final and k not in inner.heads else value
        rows.append([f"{name} (final)" if final else name, off, f"{100 * share:.1f} %"])
    title = f"{about.get('rule', 'threshold')} on {policy.score}, from {about['samples']} samples"
    table(title, ["exit after block", "threshold", "leave here"], rows)
    low, high = (metric(task, bound) for bound in expected["intervals"][task.metric])
    out.print(
        f"on these samples: {task.metric} {metric(task, expected[task.metric])} ({low} to {high}) "
        f"(static {metric(task, expected['static_' + task.metric])}), "
        f"{unit if unit == 'seconds' else 'MACs'} speed-up {expected[unit + '_speedup']:.2f}"
    )
    if isinstance(policy, Routed):
        ways = zip(policy.bias, expected["entry_shares"], strict=True)
        said = ", ".join(f"{100 * share:.1f} % at path {p} (bias {bias:.3g})" for p, (bias, share) in enumerate(ways))
        out.print(f"the router is asked where to enter: {said}")
    if "guarantee" in about:
        out.print(about["guarantee"]["sentence"])


def _draw(exits: ExitTable, costs: CostTable, policy: Policy, task: Task, unit: str, path: Path) -> None:
    from offramp.calibration import columns_of, frontier
    from offramp.report import draw_frontier
    from offramp.tasks import direction

    columns = columns_of(exits, costs, unit, policy.score, task=task)
    way = direction(task)
    points = [(columns.static / p.cost, way * p.quality) for p in frontier(columns)]
    expected = policy.provenance["expected"]  # type: ignore[attr-defined]
    chosen = (expected[f"{unit}_speedup"], expected[task.metric])
    draw_frontier(points, way * float(columns.quality[-1].mean()), chosen, task, path, unit)
    err.print(f"drawn to {path}")
