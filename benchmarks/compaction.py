"""Does leaving early save time, apart from any accuracy?

ViT-S/16 at 224 px with random weights, exits after blocks 4, 6, 8 and 10 of 12, exits forced to the shares
.3/.2/.2/.1/.2. The uncut timm model and the dynamic model are timed in turn, batch by batch, in one run. Efficiency is
measured speed-up ÷ MACs speed-up: 1 means that every multiply-add saved is time saved.
"""

from __future__ import annotations

import argparse

import timm
import torch

import offramp
from benchmarks import publish
from offramp.engine.bench import bench_forced

SHARES = (0.3, 0.2, 0.2, 0.1, 0.2)
AFTER = (4, 6, 8, 10)
BACKBONE = "vit_small_patch16_224"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=128, help="images in a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to PyTorch")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = offramp.attach(timm.create_model(BACKBONE), [offramp.Exit(after=k) for k in AFTER])
    rows = bench_forced(model, SHARES, args.batch, args.images, args.rounds, progress=True)
    publish("compaction", {"backbone": BACKBONE, "exits_after": AFTER, "shares": SHARES, "rows": rows})


if __name__ == "__main__":
    main()
