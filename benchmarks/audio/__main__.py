"""The command: train what is missing, compare, time, write, draw."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks import RESULTS, publish
from benchmarks._runs import finished, open_device, parser_of, train_all, trained_in, trained_where
from benchmarks.audio import __doc__ as summary
from benchmarks.audio.clips import LABELLED, folds_of
from benchmarks.audio.picture import draw
from benchmarks.audio.plan import FIELDS, HEADS, MAX_DROP, STEPS, heads, networks, training_of
from benchmarks.audio.result import result
from benchmarks.audio.timed import timed
from benchmarks.audio.training import Work
from benchmarks.deploy import Files


def main() -> None:
    parser = parser_of(summary, FIELDS, "runs/audio", checkpoint=False)
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "onnxruntime"], help="to time in, in fp32")
    parser.add_argument("--checkpoint", type=Path, help="weights of the pretrained network, where one is started from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=256, help="clips in a round that is timed")
    args = parser.parse_args()
    open_device(args.device)
    place, folder = FIELDS[args.field], args.work / args.field
    if place.pretrained and args.checkpoint is None:
        parser.error(f"{args.field} starts from a pretrained network: give its weights as --checkpoint")
    if place.start and not all(finished(args.work / place.start / f"static-{seed}") for seed in range(args.seeds)):
        parser.error(f"{args.field} starts from the networks of {place.start}: train these first")
    work = Work(place, folds_of(place, args.data), folder, trained_where(args), args.checkpoint)
    whole, on_them = networks(place, args.seeds), heads(place, args.seeds)
    done = [train_all(whole, args.only, work.train), train_all(on_them, args.only, work.train_heads)]
    if not all(done):
        return
    found = result(work, whole, on_them)
    torch.set_num_threads(args.threads)
    first = next(run for run in whole if run.exits)
    splits = work.folds[first.fold].splits
    how = (MAX_DROP, args.threads, (1, 64), args.images, args.rounds)
    with tempfile.TemporaryDirectory() as files:
        made = Files(work.trained(first), splits.train, Path(files))
        found["timed"] = [timed(name, made, splits, *how) for name in args.runtimes]
    about = {
        "name": place.name,
        "records": {name: dict(fold.splits.record) for name, fold in work.folds.items()},
        "labelled_share_of_speakers": LABELLED,
    }
    settings = {
        "network": {"name": place.backbone, **place.args, "input": [*place.size], **place.options},
        "starts_from": place.start or ("ImageNet" if place.pretrained else None),
        "training": training_of(place),
        "training_with_exits": training_of(place, exits=True),
        "heads_training": {**HEADS, "steps": STEPS},
        "trained": trained_in(folder / whole[0].name),
    }
    publish(f"audio-{args.field}", {"data": about, "settings": settings, "seeds": args.seeds, **found})
    draw(found, place.name, RESULTS / f"audio-{args.field}.png")


if __name__ == "__main__":
    main()
