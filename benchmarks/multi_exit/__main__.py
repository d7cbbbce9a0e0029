"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

import torch

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device
from benchmarks.multi_exit import __doc__ as summary
from benchmarks.multi_exit.picture import draw
from benchmarks.multi_exit.plan import BACKBONE, FIELDS, FINE_TUNING, HEADS, runs
from benchmarks.multi_exit.result import frontier, result
from benchmarks.multi_exit.training import Cache, fine_tune, splits_of


def main() -> None:
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("field", choices=FIELDS)
    parser.add_argument("--data", required=True, help="an .npz file or folder, or torchvision/CIFAR10")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the pretrained network's weights")
    parser.add_argument("--work", type=Path, default=Path("runs/multi_exit"), help="where runs and features are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*", help="train the runs of this pattern, and write nothing")
    parser.add_argument("--device", default="cpu", help="to train on; what is timed is always the processor")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512, help="images in an epoch that is timed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trained = open_device(args.device)
    place, work = FIELDS[args.field], args.work / args.field
    plan, splits = runs(args.seeds), splits_of(place, args.data)
    work.mkdir(parents=True, exist_ok=True)
    weights = fine_tune(place, splits, args.checkpoint, work, args.device, args.workers)
    cache = Cache(place, splits, weights, work, args.device)
    for number, run in enumerate(plan, start=1):
        if fnmatch.fnmatch(run.name, args.only):
            print(f"{number} of {len(plan)}: {run.name}", file=sys.stderr, flush=True)
            cache.train(run)
    if args.only != "*":
        return
    found = result(cache, plan)
    found["frontier"] = frontier(found["heads"])
    found["features"] = {
        "equal_to_the_backbone": cache.check(),
        "training": {"threads": args.threads, "rounds": args.rounds, "rows": cache.times(args.rounds, args.images)},
    }
    about = {"name": place.name, "images": {name: len(part) for name, part in splits.parts.items()}, **splits.record}
    setting = {
        "backbone": BACKBONE,
        "side": place.side,
        "fine_tuning": FINE_TUNING,
        "training": HEADS,
        "trained": trained,
    }
    publish(f"multi_exit-{args.field}", {"data": about, **setting, "seeds": args.seeds, **found})
    draw(found, place.name, RESULTS / f"multi_exit-{args.field}.png")


if __name__ == "__main__":
    main()
