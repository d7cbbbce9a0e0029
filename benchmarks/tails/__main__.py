"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from benchmarks.tails import __doc__ as about
from benchmarks.tails.plan import FIELDS, own_heads, runs
from benchmarks.tails.training import splits_of, train


def main() -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("field", choices=FIELDS)
    parser.add_argument("--data", required=True, help="an .npz file or folder, or torchvision/CIFAR10")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the pretrained network's weights")
    parser.add_argument("--work", type=Path, default=Path("runs/tails"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*", help="train the runs of this pattern, and write nothing")
    args = parser.parse_args()
    place, work = FIELDS[args.field], args.work / args.field
    plan = [run.seeded(seed) for seed in range(args.seeds) for run in runs(place)]
    plan.append(own_heads(place).seeded(0))
    splits = splits_of(place, args.data)
    for number, run in enumerate(plan, start=1):
        if fnmatch.fnmatch(run.name, args.only):
            print(f"{number} of {len(plan)}: {run.name}", file=sys.stderr, flush=True)
            train(run, place, splits, args.checkpoint, work)


if __name__ == "__main__":
    main()
