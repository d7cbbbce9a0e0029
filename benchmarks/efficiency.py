"""Does leaving early save time, apart from any accuracy? In every runtime that people deploy.

DeiT-S at 224 px with random weights, exits after blocks 4, 6, 8 and 10 of 12, exits forced to the shares
.3/.2/.2/.1/.2. The static backbone and the dynamic model run in the same runtime and precision, timed in turn, batch by
batch. Efficiency is measured speed-up ÷ MACs speed-up: 1 means that every multiply-add saved is time saved. Two rows at
the ends say what exits cost where nobody leaves early, and what is left where all leave at the first: dynamic time ÷
static time, over the same ratio in MACs.

``--tails``: the same with tails of 49, 100 and 196 tokens, the predictor that sends .4/.3/.3 of the images to them, and
exits after blocks 4 and 8 of each; on every path .3/.3/.4 leave there and at its end. Short sequences take more time
than their multiply-adds say, whoever computes them: every path is timed in the same turns as a network of its own, and
``of_plain`` is the efficiency over that of those networks, if each image went to its own without exits.
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
from offramp.bench.forced import ForcedWork
from offramp.bench.rows import bench_forced
from offramp.engine import open_runtime

SHARES = (0.3, 0.2, 0.2, 0.1, 0.2)
AFTER = (4, 6, 8, 10)
TAILS = (7, 10, 14)
TAIL_AFTER = (4, 8)
TAIL_SHARES = tuple(path * share for path in (0.4, 0.3, 0.3) for share in (0.3, 0.3, 0.4))
BACKBONE = "deit_small_patch16_224"
ALL = ("torch:fp32", "torch:bf16", "torch-compiled:fp32", "onnxruntime:fp32", "openvino:fp32", "openvino:bf16")


def ends(model: Any, runtime: Any, batch: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Time ratio ÷ MACs ratio of the dynamic model to the static one, at both ends."""
    found = {}
    early = len(model.exits)
    all_at = {"nobody leaves early": early, "all leave at the first": 0}
    for name, exit_ in all_at.items():
        shares = [float(k == exit_) for k in range(early + 1)]
        (row,) = bench_forced(model, shares, [batch], max(args.images // 2, batch), args.rounds, True, runtime)
        found[name] = {
            "macs_ratio": 1 / row["macs_speedup"],
            "time_ratio": 1 / row["measured_speedup"],
            "over": row["macs_speedup"] / row["measured_speedup"],
        }
    return found


class Plain(torch.nn.Module):
    """One path as a network of its own, without exits."""

    def __init__(self, model: Any, path: int) -> None:
        super().__init__()
        self.model, self.path = model, path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images to logits."""
        path = self.model.paths[self.path]
        found: torch.Tensor = path.final(path.steps(path.stem(x)))
        return found


def plain(model: Any, runtime: Any) -> dict[str, Any]:
    """Every path but the backbone itself, to be timed beside it."""
    example = model.input.example(2)
    return {
        f"path {p}": (runtime.static(Plain(model, p).eval(), example), tuple(example.shape[1:]))
        for p in range(model.chain.num_paths - 1)
    }


def of_plain(model: Any, row: dict[str, Any]) -> float:
    """The efficiency of a row over that of plain networks, with the shares of the row on each path."""
    macs, chain = offramp.profile(model, repeats=0).macs, model.chain
    shares = [sum(row["exit_shares"][a : b + 1]) for a, b in zip(chain.starts, chain.ends, strict=True)]
    spent = [*(row[f"path {p}_ms"] for p in range(chain.num_paths - 1)), row["static_ms"]]
    in_time = row["static_ms"] / sum(s * ms for s, ms in zip(shares, spent, strict=True))
    in_macs = macs.static / sum(s * path.static for s, path in zip(shares, macs.paths, strict=True))
    return float(row["efficiency"] / (in_time / in_macs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="+", default=list(ALL), help="runtime:precision")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=128, help="images in a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--tails", action="store_true", help="tails, a predictor and exits in place of exits alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    after, shares = (TAIL_AFTER, TAIL_SHARES) if args.tails else (AFTER, SHARES)
    paths: dict[str, Any] = {"tails": TAILS, "router": "cnn"} if args.tails else {}
    model = offramp.attach(timm.create_model(BACKBONE), [offramp.Exit(after=k) for k in after], **paths).eval()
    rows: list[dict[str, Any]] = []
    at_ends, memory = {}, {}
    for name in args.runtimes:
        runtime = open_runtime(*name.split(":"), args.threads)
        print(name, flush=True)
        others = plain(model, runtime)
        own = bench_forced(model, shares, args.batch, args.images, args.rounds, True, runtime, others)
        rows += [{**row, "of_plain": of_plain(model, row)} for row in own] if args.tails else own
        at_ends[name] = ends(model, runtime, args.batch[-1], args)
        if not args.no_memory:
            policy = ForcedWork(model, shares).fixed(args.batch[-1])
            found = peak_memory(model, policy, runtime, args.batch[-1], partial(offramp.save, model))
            memory[name] = {**found, "ratio": found["dynamic"]["peak_mb"] / found["static"]["peak_mb"]}
    publish(
        "efficiency-tails" if args.tails else "efficiency",
        {
            "backbone": BACKBONE,
            **({"tails": TAILS, "router": "cnn"} if args.tails else {}),
            "exits_after": after,
            "shares": shares,
            "rows": rows,
            "ends": at_ends,
            "peak_memory": memory,
        },
    )


if __name__ == "__main__":
    main()
