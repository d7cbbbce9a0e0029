"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import fnmatch
import sys

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, trained_in, trained_where, training_options
from benchmarks.audiovisual import __doc__ as summary
from benchmarks.audiovisual import plan
from benchmarks.audiovisual.pairs import digits
from benchmarks.audiovisual.picture import draw
from benchmarks.audiovisual.result import result
from benchmarks.audiovisual.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="an .npz file of pixels: MNIST")
    parser.add_argument("--clips", required=True, help="an .npz file of clips with speakers: spoken digits")
    args = training_options(parser, "runs/audiovisual").parse_args()  # a run is called by its seed
    open_device(args.device)
    given = digits(args.images, args.clips)
    folders = [args.work / str(seed) for seed in range(args.seeds)]
    for seed, folder in enumerate(folders):
        if fnmatch.fnmatch(folder.name, args.only):
            print(f"seed {seed}", file=sys.stderr, flush=True)
            train(folder, given, seed, trained_where(args))
    if args.only != "*":
        return
    found = result(folders, given)
    about = {
        "pictures": "MNIST, by principal components",
        "energy": plan.ENERGY,
        "components": given.components,
        "clips": "Free Spoken Digit Dataset",
        "speakers": [
            {"tested": tested, "calibrated": calibrated} for tested, calibrated in plan.SPEAKERS[: args.seeds]
        ],
        "pairs": {**plan.PAIRS, "test": len(given.seen["test"])},
    }
    setting = {
        "sight": {**plan.SIGHT},
        "sound": {"backbone": "resnet18", **plan.SOUND, "input": dict(plan.CLIPS)},
        "exits": {"after": plan.PLACES, "head": plan.HEAD, "fusion": plan.FUSION},
        "training": {"sound": plan.HEARING, "both": plan.BOTH},
    }
    trained = trained_in(folders[0] / "both")
    publish("audiovisual", {"data": about, "setting": setting, "trained": trained, "seeds": args.seeds, **found})
    draw(found, RESULTS / "audiovisual.png")


if __name__ == "__main__":
    main()
