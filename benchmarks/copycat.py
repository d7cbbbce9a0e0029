"""Does it help an exit to learn from unlabelled images first?

SL-ViT exits after a quarter, half and three quarters of the trained, frozen backbone in the box. A tenth of the
training images have labels; half of the others are there without. *Plain* fine-tuning trains on the labelled images
alone, *copycat* (2105.09121) first, for half of the steps, on the others as the backbone's final exit labels them. The
backbone was trained on all labels: the teacher has seen the unlabelled images as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import offramp
from benchmarks import publish
from benchmarks._runs import train_in_steps
from benchmarks.compare.rows import mean_and_deviation
from benchmarks.compare.training import SETTINGS, splits_of
from offramp import Exit
from offramp.artifact import load_artifact
from offramp.data import Samples, Splits
from offramp.data.samples import split_off
from offramp.pipeline import tabulate_samples
from offramp.training import Stage
from offramp.training.objectives.copycat import Copycat
from offramp.training.objectives.frozen import Frozen


def accuracies(
    goal: Frozen | Copycat, labelled: Samples, splits: Splits, taught: Path, seed: int, args: argparse.Namespace
) -> list[float]:
    """The test accuracy of each exit after ``args.steps`` steps, whatever the number of images in a stage.

    What the backbone says of the unlabelled images is kept in ``taught``: it is the same for all.
    """
    torch.manual_seed(seed)
    backbone = load_artifact(args.model).model.backbone.model
    model = offramp.attach(backbone, [Exit(after, "sl-vit") for after in args.after])
    with TemporaryDirectory() as folder:
        stages = goal.stages(model, labelled, taught) if isinstance(goal, Copycat) else [Stage(goal)]
        settings = {**SETTINGS, "learning_rate": 1e-3, "seed": seed, "device": "cpu", "progress": True}
        train_in_steps(model, stages, labelled, args.steps, Path(folder), settings)
    table = tabulate_samples(model, splits, "test")
    return [float(model.task.quality(output, table.targets).double().mean()) for output in table.outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an .npz file or folder, or torchvision/CIFAR10")
    parser.add_argument("--model", type=Path, default=Path("cifar10"), help="a saved model, or one in the box")
    parser.add_argument("--after", type=int, nargs="+", default=[2, 4, 6], help="blocks before each exit")
    parser.add_argument("--labelled", type=float, default=0.1, help="the share of training images with labels")
    parser.add_argument("--unlabelled", type=int, default=20000, help="how many images without")
    parser.add_argument("--steps", type=int, default=312, help="of each way, all stages together")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", default="CIFAR-10 (JPEG copy)", help="what to call the data in the result")
    args = parser.parse_args()
    splits = splits_of(args.data)
    rest, labelled = split_off(splits.train, args.labelled, 0, "labelled")
    _, unlabelled = split_off(rest, args.unlabelled, 0, "unlabelled")
    ways = {"plain": Frozen(), **{labels: Copycat(unlabelled, labels) for labels in ("hard", "soft", "both")}}
    rows: dict[str, list[list[float]]] = {name: [] for name in ways}
    with TemporaryDirectory() as taught:
        for seed in range(args.seeds):
            for name, goal in ways.items():
                print(f"seed {seed}, {name}", file=sys.stderr, flush=True)
                rows[name].append(accuracies(goal, labelled, splits, Path(taught), seed, args))
    publish(
        "copycat",
        {
            "data": {"name": args.name, **splits.record},
            "labelled": len(labelled),
            "unlabelled": len(unlabelled),
            "steps": args.steps,
            "seeds": args.seeds,
            "model": str(args.model),
            "exits_after": [*args.after, "final"],
            "accuracy": {
                name: [mean_and_deviation(column) for column in zip(*runs, strict=True)] for name, runs in rows.items()
            },
        },
    )


if __name__ == "__main__":
    main()
