"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, trained_in
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
    parser.add_argument("--work", type=Path, default=Path("runs/audiovisual"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-only", action="store_true", help="train, and write nothing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that read samples")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="to train in")
    args = parser.parse_args()
    open_device(args.device)
    where = {"device": args.device, "workers": args.workers, "precision": args.precision}
    given = digits(args.images, args.clips)
    folders = [args.work / str(seed) for seed in range(args.seeds)]
    for seed, folder in enumerate(folders):
        print(f"seed {seed}", file=sys.stderr, flush=True)
        train(folder, given, seed, where)
    if args.train_only:
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
