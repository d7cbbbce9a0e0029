"""The command: train what is missing, compare, write, draw."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from benchmarks import RESULTS, publish
from benchmarks._runs import open_device, parser_of, train_all
from benchmarks.tails import __doc__ as summary
from benchmarks.tails.methods import Readings
from benchmarks.tails.picture import draw
from benchmarks.tails.plan import (
    BACKBONE,
    FIELDS,
    FROZEN_SETTINGS,
    MT_VIT,
    OWN_HEADS,
    SETTINGS,
    large_routers,
    own_heads,
    runs,
)
from benchmarks.tails.result import heads_compared, larger_routers, result
from benchmarks.tails.timing import merged, seconds_of, times
from benchmarks.tails.training import splits_of, train
from offramp.versions import versions


def main() -> None:
    parser = parser_of(summary, FIELDS, "runs/tails")
    parser.add_argument("--timed", type=Path, help="an earlier result, whose times are kept and not measured again")
    parser.add_argument("--threads", type=int, default=0, help="of what is timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=128, help="images in a round of what is timed")
    args = parser.parse_args()
    open_device(args.device)
    place, work = FIELDS[args.field], args.work / args.field
    plan = [run.seeded(seed) for seed in range(args.seeds) for run in runs(place)]
    plan += [run.seeded(0) for run in (own_heads(place), *large_routers(place))]
    splits = splits_of(place, args.data)
    where = {"checkpoint": args.checkpoint, "work": work, "device": args.device, "workers": args.workers}
    where["precision"] = args.precision
    if not train_all(plan, args.only, partial(train, place=place, splits=splits, **where)):
        return
    classes = len(splits.classes or ())
    readings = Readings(place, work, args.seeds, classes)
    found = result(readings)
    own, shared = readings.of(OWN_HEADS, 0), readings.of("tails-exits", 0)
    found["heads"] = heads_compared(own, shared)
    found["larger_routers"] = larger_routers(readings)
    found["merged"] = merged(readings, splits, work)
    if args.timed is not None:
        earlier = json.loads(args.timed.read_text())
        same = earlier["versions"]["torch"] == versions()["torch"]
        found["times"] = [row if same else seconds_of(row) for row in earlier["times"]]
        found["timed"] = {name: earlier[name] for name in ("host", "versions", "commit")}
    else:
        found["times"] = times(readings, splits, work, found["merged"], args.threads, args.rounds, args.images)
    about = {"name": place.name, "images": {name: len(part) for name, part in splits.parts.items()}, **splits.record}
    setting = {
        "backbone": BACKBONE,
        "settings": SETTINGS,
        "frozen": FROZEN_SETTINGS,
        "mt_vit": MT_VIT,
        "trained": readings.trained,
    }
    publish(f"tails-{args.field}", {"data": about, **setting, "seeds": args.seeds, **found})
    draw(found, place.name, RESULTS / f"tails-{args.field}.png")


if __name__ == "__main__":
    main()
