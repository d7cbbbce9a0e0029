"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device
from benchmarks.pretrained import __doc__ as summary
from benchmarks.pretrained.picture import draw
from benchmarks.pretrained.plan import WAYS, base, ways
from benchmarks.pretrained.result import result
from benchmarks.tails.plan import BACKBONE, FIELDS
from benchmarks.tails.training import splits_of, train


def main() -> None:
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("field", choices=FIELDS)
    parser.add_argument("--data", required=True, help="an .npz file or folder, or torchvision/CIFAR10")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the pretrained network's weights")
    parser.add_argument("--work", type=Path, default=Path("runs/tails"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*", help="train the runs of this pattern, and write nothing")
    parser.add_argument("--device", default="cpu", help="to train on")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    args = parser.parse_args()
    trained = open_device(args.device)
    place, work = FIELDS[args.field], args.work / args.field
    plan = [run.seeded(seed) for seed in range(args.seeds) for run in (base(place), *ways(place).values())]
    splits = splits_of(place, args.data)
    for number, run in enumerate(plan, start=1):
        if fnmatch.fnmatch(run.name, args.only):
            print(f"{number} of {len(plan)}: {run.name}", file=sys.stderr, flush=True)
            train(run, place, splits, args.checkpoint, work, args.device, args.workers)
    if args.only != "*":
        return
    rows = result(place, work, args.seeds, len(splits.classes or ()))
    about = {"name": place.name, "images": {name: len(part) for name, part in splits.parts.items()}, **splits.record}
    settings = {name: {"objective": o, "settings": s, "taught": t} for name, (o, s, t) in WAYS.items()}
    setting = {"backbone": BACKBONE, "ways": settings, "trained": trained, "seeds": args.seeds}
    publish(f"pretrained-{args.field}", {"data": about, **setting, "rows": rows})
    draw(rows, place.name, RESULTS / f"pretrained-{args.field}.png")


if __name__ == "__main__":
    main()
