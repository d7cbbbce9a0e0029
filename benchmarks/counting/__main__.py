"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import fnmatch
import sys

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, trained_in, trained_where, training_options
from benchmarks.counting import __doc__ as summary
from benchmarks.counting.frames import cut
from benchmarks.counting.picture import draw
from benchmarks.counting.plan import ARGS, EXITS, FINAL, SIZE, SPLITS, TRAINING
from benchmarks.counting.result import result
from benchmarks.counting.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an .npz file of frames with points and names")
    args = training_options(parser, "runs/counting").parse_args()  # a run is called 0-1: split 0, seed 1
    open_device(args.device)
    where = trained_where(args)
    found, records = {}, {}
    for number, place in enumerate(SPLITS):
        splits = cut(place, args.data)
        folders = [args.work / f"{number}-{seed}" for seed in range(args.seeds)]
        for seed, folder in enumerate(folders):
            if fnmatch.fnmatch(folder.name, args.only):
                print(f"{place.name}, seed {seed}", file=sys.stderr, flush=True)
                train(folder, splits, seed, where)
        if args.only == "*":
            found[place.name], records[place.name] = result(folders, splits), dict(splits.record)
    if args.only != "*":
        return
    setting = {"backbone": "resnet18", **ARGS, "input": [*SIZE], "exits": EXITS, "final": FINAL, "training": TRAINING}
    trained = trained_in(args.work / "0-0")
    about = {"name": "Beijing-BRT", "records": records}
    publish("counting", {"data": about, "setting": setting, "trained": trained, "seeds": args.seeds, "splits": found})
    draw(found, RESULTS / "counting.png")


if __name__ == "__main__":
    main()
