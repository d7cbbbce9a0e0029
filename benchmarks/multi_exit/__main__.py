"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import torch

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, parser_of, train_all
from benchmarks.multi_exit import __doc__ as summary
from benchmarks.multi_exit.picture import draw
from benchmarks.multi_exit.plan import BACKBONE, FIELDS, FINE_TUNING, HEADS, runs
from benchmarks.multi_exit.result import frontier, result
from benchmarks.multi_exit.training import Cache, fine_tune, splits_of


def main() -> None:
    parser = parser_of(summary, FIELDS, "runs/multi_exit")
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
    if not train_all(plan, args.only, cache.train):
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
