"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

from functools import partial

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, parser_of, train_all, trained_in
from benchmarks.pretrained import __doc__ as summary
from benchmarks.pretrained.picture import draw
from benchmarks.pretrained.plan import WAYS, base, ways
from benchmarks.pretrained.result import result
from benchmarks.tails.plan import BACKBONE, FIELDS
from benchmarks.tails.training import splits_of, train


def main() -> None:
    parser = parser_of(summary, FIELDS, "runs/tails")
    args = parser.parse_args()
    open_device(args.device)
    place, work = FIELDS[args.field], args.work / args.field
    plan = [run.seeded(seed) for seed in range(args.seeds) for run in (base(place), *ways(place).values())]
    splits = splits_of(place, args.data)
    where = {"checkpoint": args.checkpoint, "work": work, "device": args.device, "workers": args.workers}
    where["precision"] = args.precision
    if not train_all(plan, args.only, partial(train, place=place, splits=splits, **where)):
        return
    rows = result(place, work, args.seeds, len(splits.classes or ()))
    about = {"name": place.name, "images": {name: len(part) for name, part in splits.parts.items()}, **splits.record}
    settings = {name: {"objective": o, "settings": s, "taught": t} for name, (o, s, t) in WAYS.items()}
    setting = {
        "backbone": BACKBONE,
        "ways": settings,
        "trained": {run.name: trained_in(work / run.name) for run in plan},
        "seeds": args.seeds,
    }
    publish(f"pretrained-{args.field}", {"data": about, **setting, "rows": rows})
    draw(rows, place.name, RESULTS / f"pretrained-{args.field}.png")


if __name__ == "__main__":
    main()
