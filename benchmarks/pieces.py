"""How many images of a batch should be computed at a time?

First, networks alone: milliseconds an image of a batch, computed in pieces of 1, 2, 4, … images, in every runtime. Then
a ResNet-18 and a DeiT-Ti with exits, forced to the shares .3/.2/.2/.3: whole batches, and in the pieces that ``--piece
auto`` finds, for the static network and the dynamic model, in PyTorch for each of its segments. Efficiency is measured
speed-up ÷ MACs speed-up. Multiply-adds of early layers can take longer than those of late ones: ``possible`` is the
efficiency of a model that takes, for each segment, the time that PyTorch takes for it alone, in the quickest pieces.
224 px, random weights.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import numpy as np
import timm
import torch

import offramp
from benchmarks import publish
from offramp.bench.rows import bench_forced
from offramp.cost import in_turn
from offramp.engine import RuntimeInPieces, TorchSegments, open_runtime
from offramp.types import Network

SHARES = (0.3, 0.2, 0.2, 0.3)
AFTER = {"resnet18": (3, 5, 7), "deit_tiny_patch16_224": (4, 7, 10)}
RUNTIMES = ("torch:fp32", "torch:bf16", "onnxruntime:fp32", "openvino:fp32", "openvino:bf16")


def alone(name: str, runtime_name: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds an image for each size of a piece."""
    network, x = timm.create_model(name).eval(), torch.randn(batch, 3, 224, 224)
    call = open_runtime(*runtime_name.split(":"), args.threads).static(network, x[:2])
    sizes = [2**i for i in range(batch.bit_length()) if 2**i <= batch]
    seconds = in_turn({str(n): [partial(in_pieces, call, x, n)] for n in sizes}, args.rounds)
    found = {n: 1000 * statistics.median(r[0] for r in rounds) / batch for n, rounds in seconds.items()}
    print(f"{runtime_name}: " + ", ".join(f"{n}: {ms:.2f}" for n, ms in found.items()), flush=True)
    return {"backbone": name, "runtime": runtime_name, "batch": batch, "ms_an_image": found}


def in_pieces(call: Network, x: torch.Tensor, size: int) -> None:
    """A batch, so many images at a time."""
    for piece in x.split(size):
        call(piece)


def possible(model: offramp.EarlyExitModel, batch: int, rounds: int) -> dict[str, Any]:
    """What PyTorch takes for each segment alone, and the efficiency of a model of which only that is spent."""
    segments, x = TorchSegments(model), torch.randn(batch, 3, 224, 224)
    reach = [sum(SHARES[k:]) for k in range(len(SHARES))]
    macs = np.diff([0.0, *offramp.profile(model, repeats=0).to_exit(())])
    spent, h = [], x
    with torch.inference_mode():
        for k in range(len(SHARES)):
            step = partial(segments.step, k)

            def run(size: int, h: Any = h, step: Any = step, begins: bool = k == 0) -> Any:
                pieces = [segments.enter(0, p) if begins else p for p in h.split(size)]
                return torch.cat([step(piece) for piece in pieces])

            sizes = [2**i for i in range(batch.bit_length()) if 2**i <= batch]
            seconds = in_turn({str(n): [partial(run, n)] for n in sizes}, rounds)
            spent.append(min(statistics.median(r[0] for r in found) for found in seconds.values()))
            h = run(batch)
    in_time, in_macs = (sum(part) / float(np.dot(reach, part)) for part in (spent, macs))
    return {"segments_ms_an_image": [1000 * s / batch for s in spent], "possible": in_time / in_macs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(AFTER), choices=AFTER)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), help="runtime:precision")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    networks: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    bounds: dict[str, Any] = {}
    for name in args.backbones:
        print(name, flush=True)
        networks += [alone(name, runtime, max(args.batch), args) for runtime in args.runtimes]
        exits = [offramp.Exit(after) for after in AFTER[name]]
        model = offramp.attach(timm.create_model(name), exits).eval()
        bounds[name] = possible(model, max(args.batch), args.rounds)
        for runtime in args.runtimes:
            whole = open_runtime(*runtime.split(":"), args.threads)
            for piece, computes in (("whole", whole), ("auto", RuntimeInPieces(whole))):
                found = bench_forced(model, SHARES, args.batch, max(args.batch), args.rounds, True, computes)
                rows += [{"backbone": name, "piece": piece, **row} for row in found]
    for row in rows:
        about = [row[name] for name in ("backbone", "runtime", "precision", "batch", "piece")]
        print(*about, f"efficiency {row['efficiency']:.3f}", row.get("pieces", ""))
    found = {"networks": networks, "rows": rows, "pytorch_fp32": bounds}
    publish("pieces", {"exits_after": AFTER, "shares": SHARES, **found})


if __name__ == "__main__":
    main()
