"""How many images of a batch should be computed at a time?

First, networks alone: milliseconds an image of a batch, computed in pieces of 1, 2, 4, … images, in every runtime. Then
a ResNet-18 and a DeiT-Ti with exits, forced to the shares .3/.2/.2/.3, in PyTorch: whole batches, and in the pieces that
``--piece auto`` finds, for the static network and for each segment. Efficiency is measured speed-up ÷ MACs speed-up.
224 px, random weights.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import timm
import torch

import offramp
from benchmarks import publish
from offramp.bench.rows import bench_forced
from offramp.cost import in_turn
from offramp.engine import RuntimeInPieces, open_runtime
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
    for name in args.backbones:
        print(name, flush=True)
        networks += [alone(name, runtime, max(args.batch), args) for runtime in args.runtimes]
        exits = [offramp.Exit(after) for after in AFTER[name]]
        model = offramp.attach(timm.create_model(name), exits).eval()
        whole = open_runtime("torch", threads=args.threads)
        for piece, runtime in (("whole", whole), ("auto", RuntimeInPieces(whole))):
            found = bench_forced(model, SHARES, args.batch, max(args.batch), args.rounds, True, runtime)
            rows += [{"backbone": name, "piece": piece, **row} for row in found]
    for row in rows:
        print(row["backbone"], row["batch"], row["piece"], f"efficiency {row['efficiency']:.3f}", row.get("pieces", ""))
    publish("pieces", {"exits_after": AFTER, "shares": SHARES, "networks": networks, "rows": rows})


if __name__ == "__main__":
    main()
