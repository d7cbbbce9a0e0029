"""Does leaving early save time, apart from any accuracy? In every runtime that people deploy.

DeiT-S at 224 px with random weights, exits after blocks 4, 6, 8 and 10 of 12, exits forced to the shares
.3/.2/.2/.1/.2. The static backbone and the dynamic model run in the same runtime and precision, timed in turn, batch by
batch. Efficiency is measured speed-up ÷ MACs speed-up: 1 means that every multiply-add saved is time saved. Two rows at
the ends say what exits cost where nobody leaves early, and what is left where all leave at the first: dynamic time ÷
static time, over the same ratio in MACs.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import timm
import torch

import offramp
from benchmarks import publish
from offramp.bench import peak_memory
from offramp.bench.rows import bench_forced
from offramp.engine import open_runtime
from offramp.policies.forced import forced_shares

SHARES = (0.3, 0.2, 0.2, 0.1, 0.2)
AFTER = (4, 6, 8, 10)
BACKBONE = "deit_small_patch16_224"
ALL = ("torch:fp32", "torch:bf16", "torch-compiled:fp32", "onnxruntime:fp32", "openvino:fp32", "openvino:bf16")
ENDS = {"nobody leaves early": (0, 0, 0, 0, 1), "all leave at the first": (1, 0, 0, 0, 0)}


def ends(model: Any, runtime: Any, batch: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Time ratio ÷ MACs ratio of the dynamic model to the static one, at both ends."""
    found = {}
    for name, shares in ENDS.items():
        (row,) = bench_forced(model, shares, [batch], max(args.images // 2, batch), args.rounds, True, runtime)
        found[name] = {
            "macs_ratio": 1 / row["macs_speedup"],
            "time_ratio": 1 / row["measured_speedup"],
            "over": row["macs_speedup"] / row["measured_speedup"],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="+", default=list(ALL), help="runtime:precision")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=128, help="images in a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = offramp.attach(timm.create_model(BACKBONE), [offramp.Exit(after=k) for k in AFTER]).eval()
    rows: list[dict[str, Any]] = []
    at_ends, memory = {}, {}
    for name in args.runtimes:
        runtime = open_runtime(*name.split(":"), args.threads)
        print(name, flush=True)
        rows += bench_forced(model, SHARES, args.batch, args.images, args.rounds, True, runtime)
        at_ends[name] = ends(model, runtime, args.batch[-1], args)
        if not args.no_memory:
            policy = forced_shares(SHARES, args.batch[-1])
            found = peak_memory(model, policy, runtime, args.batch[-1], partial(offramp.save, model))
            memory[name] = {**found, "ratio": found["dynamic"]["peak_mb"] / found["static"]["peak_mb"]}
    publish(
        "efficiency",
        {
            "backbone": BACKBONE,
            "exits_after": AFTER,
            "shares": SHARES,
            "rows": rows,
            "ends": at_ends,
            "peak_memory": memory,
        },
    )


if __name__ == "__main__":
    main()
