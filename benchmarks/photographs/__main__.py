"""The command: train what is missing, export, calibrate, time, write, draw."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, parser_of, train_all, trained_where
from benchmarks.photographs import __doc__ as summary
from benchmarks.photographs.files import Files
from benchmarks.photographs.picture import draw
from benchmarks.photographs.plan import LITE0, alone, leaving, lite0_weights, to_train
from benchmarks.photographs.rows import PLACES, rows
from benchmarks.tails.plan import BACKBONE, FIELDS, Run
from benchmarks.tails.training import splits_of, train


def main() -> None:
    parser = parser_of(summary, FIELDS, "runs/tails")
    parser.add_argument("--places", nargs="+", default=list(PLACES), help="runtime:precision")
    parser.add_argument("--methods", nargs="+", help="some of them, by the names in the result")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=128, help="images in a round")
    parser.add_argument("--keep", type=Path, help="a folder for finished rows, so that a run that was cut off goes on")
    args = parser.parse_args()
    open_device(args.device)
    torch.set_num_threads(args.threads)
    place, work = FIELDS[args.field], args.work / args.field
    known = {**alone(place), **leaving(place)}
    methods = args.methods or list(known)
    if unknown := set(methods) - set(known):
        parser.error(f"no method {min(unknown)!r}; there are {', '.join(known)}")
    plan = [run.seeded(0) for run in to_train(place, methods)]
    splits = splits_of(place, args.data)
    where = {"work": work, **trained_where(args)}

    def fit(run: Run) -> None:
        weights = lite0_weights(args.work) if run.network == LITE0 else args.checkpoint
        train(run, place, splits, weights, **where)

    if not train_all(plan, args.only, fit):
        return
    with tempfile.TemporaryDirectory() as folder:
        files, keep = Files(place, work, splits, Path(folder)), (args.keep or Path(folder)) / args.field
        found = rows(files, keep, args.places, methods, args.threads, args.rounds, args.images)
    about = {"name": place.name, "images": {name: len(part) for name, part in splits.parts.items()}, **splits.record}
    publish(f"photographs-{args.field}", {"data": about, "backbone": BACKBONE, **found})
    draw(found["rows"], f"{place.name}, ViT-Ti/16", RESULTS / f"photographs-{args.field}.png")


if __name__ == "__main__":
    main()
