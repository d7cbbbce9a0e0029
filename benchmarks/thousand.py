"""Exits for 1,000 classes, learned from photographs that nobody labelled.

The pretrained ViT-Ti/16 stays as it is. Heads after blocks 6, 8 and 10 learn from its own answers on photographs of
other data: ``copycat`` from the class that it names, ``head-distillation`` from all it says. Some have a classifier of
their own (``linear``), some answer through the network's (``lens``). They are judged on photographs of the ImageNet
validation set, of which the seed cuts one half to calibrate on and one to test on:

``python -m benchmarks.thousand --photographs imagenet_val1300.npz --unlabelled imagenette.npz cifar10.npz:4000
--checkpoint vit_tiny.safetensors``

For each way and head: accuracy of each exit, the cheapest policy that loses at most a point on the calibrating half,
and the one that promises, with confidence .95, at most 5 % of answers other than the network's.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import offramp
from benchmarks import publish
from benchmarks.compare.rows import mean_and_deviation
from offramp import Exit
from offramp.bench.rows import spaced
from offramp.data import Samples, loader, open_splits
from offramp.data.npz import read_npz
from offramp.inputs import ImageInput
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.recipe import BackboneSection
from offramp.report import bootstrap_interval
from offramp.report.evaluation import evaluate_table
from offramp.training.objectives.copycat import Copycat
from offramp.training.objectives.lgvit import HeadDistillation
from offramp.types import ExitTable

BACKBONE = "vit_tiny_patch16_224"
AFTER = (6, 8, 10)
HEADS = ("linear", "lens")
"""One with a classifier of its own, one that answers through the network's."""
WAYS = ("copycat", "head-distillation")
SETTINGS: dict[str, Any] = {
    "epochs": 6,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "warmup_epochs": 0.5,
    "precision": "fp32",
}
_CUT = 1000
"""Images cut off a source that has no validation split; they are not used."""
GOALS: dict[str, dict[str, float]] = {"at most a point lost": {"max_drop": 0.01}, "promise": {"risk": 0.05}}


@dataclass(frozen=True)
class Joined:
    """Reads samples of several data sets, at one size.

    Args:
        parts: the data sets.
        side: pixels of a side.
    """

    parts: Sequence[Samples]
    side: int

    def __call__(self, i: int) -> Image.Image:
        """The picture at an index of them all."""
        for part in self.parts:
            if i < len(part):
                picture: Image.Image = part.read(i)
                return picture.convert("RGB").resize((self.side, self.side), Image.Resampling.BICUBIC)
            i -= len(part)
        raise IndexError(i)


def unlabelled(sources: Sequence[str], side: int) -> Samples:
    """Training images of all sources, each ``FILE`` or ``FILE:NUMBER``; their labels are not used."""
    parts = []
    for source in sources:
        name, _, number = source.partition(":")
        train = open_splits(name, _CUT, 0).train
        parts.append(spaced(train, int(number)) if number else train)
    return Samples(Joined(parts, side), np.zeros(sum(map(len, parts)), np.int64))


def model_of(checkpoint: Path | None, head: str, seed: int, args: dict[str, Any]) -> EarlyExitModel:
    """The network with untrained heads."""
    section = BackboneSection(name=BACKBONE, args=args, preprocessing={"crop_pct": 1.0}, checkpoint=checkpoint)
    torch.manual_seed(0)
    inner = timm_model(section, 1000)
    torch.manual_seed(seed)
    return offramp.attach(inner, [Exit(after, head) for after in AFTER])


def table_of(way: str, head: str, seed: int, features: offramp.Features, train: Samples, test: Samples) -> ExitTable:
    """Train heads on features, and read the photographs."""
    folder = features.folder / f"{way}-{head}-{seed}"
    model = features.model
    objective: Any = HeadDistillation(alpha=1.0)  # all of it from the network: there are no labels
    if way == "copycat":  # the paper goes on with true labels; here there are none
        (stage, _) = Copycat(train).stages(model, train, features.folder / "said")
        objective, train = stage.objective, stage.samples or train
    offramp.train(model, train, objective, folder=folder, seed=seed, device="cpu", progress=True, **SETTINGS)
    shutil.rmtree(folder)
    return offramp.tabulate(model, loader(test, model.input, 100), {"data": "photographs"})


def judged(table: ExitTable, model: EarlyExitModel, seed: int) -> dict[str, Any]:
    """Both halves of the photographs: what was calibrated on one, on the other."""
    rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    calibrating, testing = table.take(rows[: len(rows) // 2]), table.take(rows[len(rows) // 2 :])
    costs, final = offramp.profile(model, repeats=0), testing.of(-1).argmax(1)
    found: dict[str, Any] = {
        "exits": [
            {
                "after": after,
                "accuracy": float((own.argmax(1) == testing.targets).double().mean()),
                "agrees": float((own.argmax(1) == final).double().mean()),
                "macs": macs / costs.macs.static,
            }
            for after, own, macs in zip(testing.after, testing.each(), costs.to_exit(range(len(AFTER))), strict=True)
        ]
    }
    for name, goal in GOALS.items():
        policy = offramp.calibrate(calibrating, costs, **goal)
        row = evaluate_table(testing, costs, policy, model.task)
        own = offramp.replay(policy, testing).output.argmax(1)
        broken = (own != final).double()
        found[name] = {
            "thresholds": policy.thresholds,
            "change": row["dynamic"]["change"],
            "change_interval": row["dynamic"]["change_interval"],
            "macs_speedup": row["dynamic"]["speedup"]["macs"],
            "macs_interval": row["dynamic"]["speedup_intervals"]["macs"],
            "other_answers": float(broken.mean()),
            "other_answers_interval": bootstrap_interval(broken.numpy()),
        }
    return found


def said_by(model: EarlyExitModel, samples: Samples) -> Tensor:
    """What the network alone says."""
    with torch.inference_mode():
        return torch.cat([model.backbone.model(x) for x, _ in loader(samples, model.input, 64)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="an .npz with a labelled test split")
    parser.add_argument("--unlabelled", nargs="+", required=True, help="FILE or FILE:NUMBER of training images")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the pretrained network's weights")
    parser.add_argument("--work", type=Path, default=Path("runs/thousand"), help="where features are kept")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    run(args.photographs, args.unlabelled, args.checkpoint, args.work, args.seeds)


def run(
    photographs: Path, sources: Sequence[str], checkpoint: Path | None, work: Path, seeds: int, **network: Any
) -> None:
    """The whole road; ``network`` are arguments of the backbone."""
    test = read_npz(photographs, ImageInput)[0]["test"]
    rows: dict[str, list[dict[str, Any]]] = {}
    same, train, said = True, None, None
    for head in HEADS:
        for way in WAYS:
            for seed in range(seeds):
                print(f"{way}, {head}, seed {seed}", file=sys.stderr, flush=True)
                model = model_of(checkpoint, head, seed, network).eval()
                features = offramp.Features(model, work)
                side = model.input.shapes["images"][1]
                train = unlabelled(sources, side) if train is None else train
                kept = {n: features.of(s, n, progress=True) for n, s in (("train", train), ("test", test))}
                table = table_of(way, head, seed, features, kept["train"], kept["test"])
                said = said_by(model, test) if said is None else said
                same &= torch.equal(said, table.of(-1))  # bit for bit
                rows.setdefault(f"{way}, {head}", []).append(judged(table, model, seed))
    assert train is not None
    publish(
        "thousand",
        {
            "backbone": BACKBONE,
            "images": {"unlabelled": len(train), "calibrating": len(test) // 2, "testing": len(test) - len(test) // 2},
            "sources": [Path(source).name for source in sources],
            "settings": SETTINGS,
            "seeds": seeds,
            "final_exit_unchanged": same,
            "rows": [{"way": name, **summary(found)} for name, found in rows.items()],
        },
    )


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and each seed's policies."""
    exits = [
        {"after": column[0]["after"], "macs": column[0]["macs"]}
        | {name: mean_and_deviation([row[name] for row in column]) for name in ("accuracy", "agrees")}
        for column in zip(*(row["exits"] for row in found), strict=True)
    ]
    return {"exits": exits, **{goal: [row[goal] for row in found] for goal in GOALS}}


if __name__ == "__main__":
    main()
