"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from benchmarks import RESULTS, publish
from benchmarks.compare import __doc__ as about
from benchmarks.compare.curves import draw
from benchmarks.compare.plan import runs
from benchmarks.compare.result import result
from benchmarks.compare.training import finish, splits_of


def main() -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an .npz file or folder, or torchvision/CIFAR10")
    parser.add_argument("--work", type=Path, default=Path("compare.run"), help="where runs are kept")
    parser.add_argument("--pretrain", type=int, default=3, help="epochs of the shared backbone")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each way of training after it")
    parser.add_argument("--seeds", type=int, default=3, help="how many times the heads are trained")
    parser.add_argument("--best", default="mixer", help="the best of the seven heads: it is trained by every method")
    parser.add_argument("--small", type=int, default=5, help="blocks of the static alternative")
    parser.add_argument("--name", default="CIFAR-10 (JPEG copy)", help="what to call the data in the result")
    parser.add_argument("--only", default="*", help="train the runs of this pattern, and write nothing")
    args = parser.parse_args()
    plan = runs(args.best, args.pretrain, args.epochs, args.seeds, args.small)
    splits = splits_of(args.data)
    for number, run in enumerate(plan, start=1):
        if fnmatch.fnmatch(run.name, args.only):
            print(f"{number} of {len(plan)}: {run.name}", file=sys.stderr, flush=True)
            finish(run, splits, args.work)
    if args.only == "*":
        found = result(plan, args.work, args.best, lambda what: print(f"reading {what}", file=sys.stderr, flush=True))
        publish("compare", {"data": {"name": args.name, **splits.record}, **found})
        draw(found, args.name, RESULTS)


if __name__ == "__main__":
    main()
