"""Are deadlines kept? Requests of one image with random limits, on a machine that is busy with something else as well.

Limits are drawn between the time of the first exit and more than that of the whole model. The engine starts a segment
only where its measured 95th percentile fits; an answer counts as in time within its limit and one head's time. A second
process keeps a core busy all the while. Accuracy by limit is reported twice: of the answers, and of the exits that gave
them over the images of all requests, which is free of the luck of which images had which limit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks import publish
from offramp._progress import track
from offramp.artifact import load_artifact
from offramp.data import Prepared, loader
from offramp.pipeline import open_for


def busy() -> None:
    """Multiply matrices for ever."""
    torch.set_num_threads(1)
    a = torch.randn(512, 512)
    while True:
        a = (a @ a).tanh()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("cifar10"), help="a saved model, or one in the box")
    parser.add_argument("--data", required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    artifact = load_artifact(args.model)
    model, splits = artifact.model, open_for(artifact, args.data)
    images = Prepared(splits.test, model.input)
    process = multiprocessing.get_context("spawn").Process(target=busy, daemon=True)
    process.start()
    time.sleep(2)
    costs = offramp.profile(model, batch_size=1, repeats=200)
    assert costs.p95 is not None
    head = max(*costs.p95.heads, costs.p95.final)
    first = costs.to_exit((0,), "p95")[0]
    random = np.random.default_rng(0)
    limits = random.uniform(first, 1.5 * costs.p95.static, args.requests)
    chosen = random.permutation(len(images))[: args.requests]
    rows = []
    for i, limit in zip(track(chosen, "requests", args.requests), limits, strict=True):
        x, target = images[int(i)]
        start = time.perf_counter()
        trace = offramp.run_until(model, x[None], float(limit), costs)
        spent = time.perf_counter() - start
        rows.append((limit, spent, int(trace.exit[0]), int(trace.output.argmax(1)) == target))
    process.terminate()
    table = offramp.tabulate(model, loader(splits.test.take(chosen), model.input))
    of_exit = np.array([float(model.task.quality(output, table.targets).double().mean()) for output in table.outputs])
    limit, spent, exits, right = (np.array(column) for column in zip(*rows, strict=True))
    edges = np.quantile(limit, np.linspace(0, 1, 6))
    bins: list[dict[str, Any]] = []
    for low, high in pairwise(edges):
        rows_in = (limit >= low) & (limit <= high)
        bins.append(
            {
                "limit_ms": [1000 * low, 1000 * high],
                "accuracy": float(right[rows_in].mean()),
                "accuracy_of_exits": float(of_exit[exits[rows_in]].mean()),
                "mean_exit": float(exits[rows_in].mean()),
                "median_ms": float(1000 * np.median(spent[rows_in])),
            }
        )
    publish(
        "deadline",
        {
            "model": str(args.model),
            "data": splits.record["source"],
            "requests": args.requests,
            "threads": args.threads,
            "busy_processes": 1,
            "head_ms": 1000 * head,
            "p95_ms": {"first exit": 1000 * first, "static": 1000 * costs.p95.static},
            "in_time": float((spent <= limit + head).mean()),
            "in_time_strictly": float((spent <= limit).mean()),
            "late_ms": {
                "p99": float(1000 * np.quantile(spent - limit, 0.99)),
                "worst": float(1000 * (spent - limit).max()),
            },
            "by_limit": bins,
            "accuracy_of_each_exit": of_exit.tolist(),
            "accuracy_rises": {
                name: all(a[name] <= b[name] for a, b in pairwise(bins)) for name in ("accuracy", "accuracy_of_exits")
            },
        },
    )


if __name__ == "__main__":
    main()
