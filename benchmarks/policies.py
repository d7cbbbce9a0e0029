"""Which rule for leaving is worth most? All policies on one trained model, at equal MACs.

Everything is chosen on validation data: thresholds, numbers of votes, gates, ensembles, temperatures. Test data is read
once, for what is reported. The reference is what people do: one threshold on the largest probability, shared by all
exits, tuned for the same MACs. Random exits and an oracle that knows the labels stand below and above.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks import publish
from benchmarks.compare.rows import area_of
from offramp._progress import track
from offramp.artifact import load_artifact
from offramp.bench.measure import macs_speedup
from offramp.bench.rows import bench_policy
from offramp.calibration import Columns, columns_of, fit_temperatures, halves
from offramp.calibration.references import at_random, oracle
from offramp.calibration.risk import METHODS
from offramp.calibration.rules import rules
from offramp.errors import GoalError
from offramp.pipeline import open_for, tabulate_samples
from offramp.policies import Policy, replay
from offramp.report import bootstrap_interval
from offramp.search.budget import exit_distribution
from offramp.types import CostTable, ExitTable

POINTS = 9

Choose = Callable[[float], Policy]


def ways(validation: ExitTable, costs: CostTable) -> dict[str, Choose]:
    """For each rule a function from a MACs speed-up to the policy chosen on validation data."""
    fitted, chosen = halves(validation)
    temperatures = fit_temperatures(fitted)

    def per_exit(score: str) -> Choose:
        return lambda s: offramp.calibrate(validation, costs, target_speedup=s, score=score)

    found: dict[str, Choose] = {
        "max-probability, one threshold": lambda s: offramp.calibrate(validation, costs, target_speedup=s, shared=True),
        "max-probability, one per exit": per_exit("confidence"),
        "margin, one per exit": per_exit("margin"),
        "entropy, one per exit": per_exit("entropy"),
        "energy, one per exit": per_exit("energy"),
        "temperature-scaled, one per exit": lambda s: offramp.calibrate(
            chosen, costs, target_speedup=s, temperatures=temperatures
        ),
    }
    for rule in rules():
        found[rule] = lambda s, rule=rule: offramp.calibrate(validation, costs, target_speedup=s, rule=rule)
    return found


def at_target(policy: Policy, test: ExitTable, costs: CostTable, model: Any) -> dict[str, Any]:
    """What a policy is worth on test data."""
    trace = replay(policy, test)
    right = model.task.quality(trace.output, test.targets).double()
    changed = model.task.answer(trace.output) != model.task.answer(test.outputs[-1])
    return {
        "accuracy": float(right.mean()),
        "interval": bootstrap_interval(right.numpy()),
        "answers_changed": float(changed.double().mean()),
        "macs_speedup": macs_speedup(costs, policy, trace),
    }


def at_macs(points: list[dict[str, Any]], speedup: float) -> float | None:
    """Accuracy at these MACs, on the straight line between two points; that of the dearest point beyond it.

    A policy that was asked for a speed-up may find that a larger one loses nothing. None where no point is so cheap.
    """
    found = sorted((1 / p["macs_speedup"], p["accuracy"]) for p in points)
    costs, accuracies = np.array(found).T
    if 1 / speedup < costs[0] - 0.01:
        return None
    return float(np.interp(1 / speedup, costs, accuracies))


def targets_for(costs: CostTable) -> list[float]:
    """Speed-ups to ask for, up to what leaving at the first exit gives."""
    most = costs.macs.static / costs.to_exit((0,))[0]
    return [float(target) for target in np.geomspace(1.25, 0.98 * most, POINTS)]


def references(columns: Columns, targets: list[float], shown: list[float]) -> dict[str, dict[str, Any]]:
    """Random exits with MSDNet's shares for each target, and the oracle."""
    random = []
    for target in targets:
        try:
            point = at_random(columns, exit_distribution(columns, columns.static / target))
        except GoalError:
            continue
        random.append({"accuracy": point.quality, "macs_speedup": columns.static / point.cost})
    best = oracle(columns)
    return {
        "random": {"curve": random, **{f"at_{s}": at_macs(random, s) for s in shown}},
        "oracle": {"accuracy": best.quality, "macs_speedup": columns.static / best.cost},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("cifar10"), help="a saved model, or one in the box")
    parser.add_argument("--data", required=True)
    parser.add_argument("--name", default="CIFAR-10 (JPEG copy)", help="what to call the data in the result")
    parser.add_argument(
        "--speedups", type=float, nargs="+", default=[1.5, 2.0, 2.5, 2.75, 3.0], help="in MACs, to show"
    )
    parser.add_argument("--risk", type=float, default=0.02, help="the share of changed answers to promise")
    args = parser.parse_args()
    artifact = load_artifact(args.model)
    model, splits = artifact.model, open_for(artifact, args.data)
    costs = artifact.costs or offramp.profile(model, repeats=0)
    validation = tabulate_samples(model, splits, "validation", progress=True)
    test = tabulate_samples(model, splits, "test", progress=True)
    all_ways, targets = ways(validation, costs), targets_for(costs)
    timed = min(targets, key=lambda target: abs(target - 2))
    rows: dict[str, dict[str, Any]] = {}
    for name, choose in track(all_ways.items(), "policies", len(all_ways)):
        points, chosen = [], {}
        for target in targets:
            try:
                policy = choose(target)
            except GoalError:
                continue
            points.append({"target": target, **at_target(policy, test, costs, model)})
            chosen[target] = policy
        rows[name] = {"points": points, "policy": chosen.get(timed)}
    for method in METHODS:
        policy = offramp.calibrate(validation, costs, risk=args.risk, method=method)
        points = [at_target(policy, test, costs, model)]
        rows[f"risk {100 * args.risk:g}%, {method}"] = {"points": points, "policy": policy}
    reference = rows["max-probability, one threshold"]["points"]
    found = []
    for name, row in rows.items():
        timing = {"measured_speedup": None}
        if row["policy"] is not None:
            timing = bench_policy(model, row["policy"], splits.test, [64], images=512, rounds=5)[0]
        accuracies = {str(s): at_macs(row["points"], s) for s in args.speedups} if len(row["points"]) > 1 else {}
        over = {s: None if a is None else a - (at_macs(reference, float(s)) or 0) for s, a in accuracies.items()}
        promise = getattr(row["policy"], "provenance", {}).get("guarantee", {}).get("sentence")
        found.append(
            {
                "policy": name,
                "accuracy_at_macs": accuracies,
                "over_max_probability": over,
                "area": area_of(row["points"]) if len(row["points"]) > 1 else None,
                "measured_speedup": timing["measured_speedup"],
                "guarantee": promise,
                "points": row["points"],
            }
        )
    best = {}
    for speedup in map(str, args.speedups):
        over = {r["policy"]: r["over_max_probability"].get(speedup) for r in found}
        known = {name: value for name, value in over.items() if value is not None}
        if known:
            name = max(known, key=lambda name: known[name])
            best[speedup] = {"policy": name, "over_max_probability": known[name]}
    static = model.task.quality(test.outputs[-1], test.targets).double()
    publish(
        "policies",
        {
            "model": str(args.model),
            "data": {"name": args.name, **splits.record},
            "static": {"accuracy": float(static.mean()), "interval": bootstrap_interval(static.numpy())},
            "rows": found,
            "references": references(columns_of(test, costs), targets, args.speedups),
            "best": best,
            "timed_at_target": timed,
            "threads": torch.get_num_threads(),
        },
    )


if __name__ == "__main__":
    main()
