"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, trained_in, trained_where, training_options
from benchmarks.audio.plan import HEADS
from benchmarks.counting.frames import cut
from benchmarks.counting.plan import SPLITS
from benchmarks.crops import __doc__ as summary
from benchmarks.crops.picture import draw
from benchmarks.crops.plan import BACKBONE, GRID, PLACES, SIDE, STEPS, TRAINING
from benchmarks.crops.result import best_of, result
from benchmarks.crops.training import Work
from offramp.data import splits_in_crops


def main() -> None:
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an .npz file of frames with points and names")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the pretrained network's weights")
    args = training_options(parser, "runs/crops").parse_args()  # a run is called 0-1: split 0, seed 1
    open_device(args.device)
    places: dict[str, list[Work]] = {}
    for number, place in enumerate(SPLITS):
        folders = {seed: args.work / f"{number}-{seed}" for seed in range(args.seeds)}
        asked = {seed: folder for seed, folder in folders.items() if fnmatch.fnmatch(folder.name, args.only)}
        if not asked:
            continue
        splits = splits_in_crops(cut(place, args.data), GRID)
        runs = places[place.name] = [Work(splits, folder, seed, args.checkpoint) for seed, folder in folders.items()]
        for seed in asked:
            print(f"{place.name}, seed {seed}", file=sys.stderr, flush=True)
            runs[seed].train(trained_where(args))
    if args.only != "*":
        return
    best = best_of([*places.values()])
    found = {name: result(runs, best) for name, runs in places.items()}
    records = {name: dict(runs[0].splits.record) for name, runs in places.items()}
    setting = {
        "backbone": BACKBONE,
        "input": [3, SIDE, SIDE],
        "crops": [*GRID],
        "places": [*PLACES],
        "training": TRAINING,
        "heads_training": {**HEADS, "steps": STEPS},
    }
    about = {"name": "Beijing-BRT", "records": records}
    trained = trained_in(args.work / "0-0")
    publish("crops", {"data": about, "setting": setting, "trained": trained, "seeds": args.seeds, "splits": found})
    draw(found, RESULTS / "crops.png")


if __name__ == "__main__":
    main()
