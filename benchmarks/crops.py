"""A ViT that counts in crops: the seven heads of Multi-Exit Vision Transformer, each a number, on the frames of
``benchmarks.counting``.

``python -m benchmarks.crops --data beijing_brt.npz --checkpoint vit_tiny.safetensors`` does as that paper's authors did
with DISCO (2106.15183): a frame is cut into crops, a pretrained ViT learns the number of heads on each, exits of one
kind after the other learn from what it computes, and a frame's number is the sum over its crops. Policies let each crop
leave by itself; the kind of their exits is the one with the smallest error on validation frames.

It writes ``results/crops.json``.
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks import publish
from benchmarks._runs import (
    TABLES,
    finish,
    finished,
    open_device,
    over,
    table,
    train_in_steps,
    trained_in,
    trained_where,
    training_options,
    weights,
)
from benchmarks.audio.plan import HEADS, SEVEN
from benchmarks.counting.frames import cut
from benchmarks.counting.plan import MORE, RULES, SPLITS
from offramp import Exit
from offramp.artifact import save_table
from offramp.bench.measure import macs_speedup
from offramp.cost import profile
from offramp.data import Splits, loader, splits_in_crops
from offramp.errors import GoalError
from offramp.inputs import PointsInput
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.policies import replay
from offramp.recipe import BackboneSection
from offramp.report import bootstrap_interval
from offramp.training import Stage
from offramp.training.objectives.frozen import Frozen
from offramp.types import ExitTable

BACKBONE, SIDE, GRID = "vit_tiny_patch16_224", 96, (3, 2)
PLACES = (3, 6, 9)
STEPS = 900
"""Of every kind of head."""
TRAINING: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 32,
    "learning_rate": 3e-4,
    "layer_decay": 0.8,
    "weight_decay": 0.05,
    "warmup_epochs": 1,
    "ema": 0.99,
    "augment": {"scale": (0.6, 1.0), "ratio": (0.9, 1.1), "hflip": 0.5, "color_jitter": 0.3},
}


@dataclass(frozen=True)
class Work:
    """A split, a seed and the folder of its runs.

    Args:
        splits: crops.
        folder: for runs.
        seed: of everything random.
        checkpoint: weights of the pretrained network.
    """

    splits: Splits
    folder: Path
    seed: int
    checkpoint: Path

    def build(self, kind: str = "") -> EarlyExitModel:
        """The network without exits, or with exits of a kind; trained, where it has been."""
        torch.manual_seed(self.seed)
        section = BackboneSection(name=BACKBONE, args={"img_size": SIDE}, checkpoint=self.checkpoint)
        inner = timm_model(section, 1)
        reads = PointsInput.for_backbone(inner, (3, SIDE, SIDE), crops=GRID)
        exits = [Exit(after, kind) for after in PLACES] if kind else []
        model = offramp.attach(inner, exits, "counting", model_input=reads)
        if finished(self.folder):
            model.load_state_dict(weights(self.folder), strict=False)
        return model

    def train(self, where: dict[str, Any]) -> None:
        """The network, and then every kind of head from what it computes."""
        finish(self.folder, self.build(), self.splits, "backbone", {**TRAINING, "seed": self.seed}, **where)
        for kind in SEVEN:
            folder = self.folder / kind
            if finished(folder):
                continue
            print(folder, file=sys.stderr, flush=True)
            features = offramp.Features(self.build(kind), self.folder / "features")
            parts = {name: features.of(samples, name) for name, samples in self.splits.parts.items()}
            shutil.rmtree(folder / "run", ignore_errors=True)  # seconds of work: begun anew
            settings = {**HEADS, "seed": self.seed, "device": "cpu"}
            train_in_steps(features.model, [Stage(Frozen())], parts["train"], STEPS, folder / "run", settings)
            for split in TABLES:
                said = offramp.tabulate(features.model, loader(parts[split], features.model.input, 256))
                save_table(said, folder / f"{split}.safetensors")
            shutil.rmtree(folder / "run")

    @cached_property
    def tests(self) -> dict[str, ExitTable]:
        """What the exits of each kind said of the crops that are tested on."""
        return {kind: table(self.folder / kind, "test") for kind in SEVEN}

    def calibrating(self, kind: str) -> ExitTable:
        """The same of those that calibrate."""
        return table(self.folder / kind, "validation")


def by_frame(numbers: torch.Tensor) -> np.ndarray:
    """Numbers of crops ``(crops,)`` as those of frames."""
    sums: np.ndarray = numbers.double().numpy().reshape(-1, GRID[0] * GRID[1]).sum(1)
    return sums


def errors(found: ExitTable) -> np.ndarray:
    """Absolute errors ``(exits, frames)``."""
    truth = by_frame(found.targets)
    return np.stack([np.abs(by_frame(output[:, 0]) - truth) for output in found.each()])


def result(runs: Sequence[Work]) -> dict[str, Any]:
    """Of one split, all seeds."""
    splits = runs[0].splits
    trained, tested = (by_frame(torch.from_numpy(part.targets)) for part in (splits.train, splits.test))
    trivial = np.abs(tested - trained.mean())
    finals = np.stack([errors(run.tests[SEVEN[0]])[-1] for run in runs])
    kinds = {kind: _exits(kind, runs) for kind in SEVEN}
    calibrating = {k: statistics.fmean(errors(run.calibrating(k))[:-1].mean() for run in runs) for k in SEVEN}
    best = min(calibrating, key=calibrating.__getitem__)
    return {
        "frames": {name: len(part) // (GRID[0] * GRID[1]) for name, part in splits.parts.items()},
        "trivial": {"mae": float(trivial.mean()), "rmse": float(np.sqrt((trivial**2).mean()))},
        "final": _said(finals),
        "exits": kinds,
        "policies": [_policy(rule, more, best, runs) for rule in RULES for more in MORE],
    }


def _exits(kind: str, runs: Sequence[Work]) -> list[dict[str, Any]]:
    costs = profile(runs[0].build(kind), repeats=0)
    own, chain = np.stack([errors(run.tests[kind]) for run in runs]), costs.in_chain()
    crops = GRID[0] * GRID[1]
    return [
        {"after": after, "macs_of_a_frame": crops * chain.alone(k), **_said(own[:, k])}
        for k, after in enumerate(PLACES)
    ]


def _said(found: np.ndarray) -> dict[str, Any]:
    """Of errors ``(seeds, frames)``."""
    interval = bootstrap_interval(found.mean(0))
    return {"mae": over(found.mean(1)), "interval": interval, "rmse": over(np.sqrt((found**2).mean(1)))}


def _policy(rule: str, more: float, kind: str, runs: Sequence[Work]) -> dict[str, Any]:
    """A rule calibrated for so much more error of crops on validation frames, read on test frames."""
    costs, about = profile(runs[0].build(kind), repeats=0), {"rule": rule, "more": more, "head": kind}
    changes, statics, speedups, shares = [], [], [], []
    for run in runs:
        validation, test = run.calibrating(kind), run.tests[kind]
        own = [(output[:, 0] - validation.targets).abs() for output in validation.each()][-1]
        try:
            policy = offramp.calibrate(validation, costs, max_drop=more * float(own.mean()), rule=rule)
        except GoalError as error:
            return {**about, "out_of_reach": str(error)}
        trace, static = replay(policy, test), errors(test)[-1]
        changes.append(np.abs(by_frame(trace.output[:, 0]) - by_frame(test.targets)) - static)
        statics.append(float(static.mean()))
        speedups.append(macs_speedup(costs, policy, trace))
        shares.append(np.bincount(trace.exit.numpy(), minlength=len(PLACES) + 1) / len(test))
    change = np.stack(changes)
    return {
        **about,
        "macs_speedup": over(speedups),
        "change": float(change.mean()),
        "interval": bootstrap_interval(change.mean(0)),
        "change_as_share": float(change.mean()) / statistics.fmean(statics),
        "exit_shares": np.mean(shares, axis=0).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an .npz file of frames with points and names")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the pretrained network's weights")
    args = training_options(parser, "runs/crops").parse_args()  # a run is called 0-1: split 0, seed 1
    open_device(args.device)
    found, records = {}, {}
    for number, place in enumerate(SPLITS):
        folders = {seed: args.work / f"{number}-{seed}" for seed in range(args.seeds)}
        asked = {seed: folder for seed, folder in folders.items() if fnmatch.fnmatch(folder.name, args.only)}
        if not asked:
            continue
        splits = splits_in_crops(cut(place, args.data), GRID)
        runs = {seed: Work(splits, folder, seed, args.checkpoint) for seed, folder in folders.items()}
        for seed in asked:
            print(f"{place.name}, seed {seed}", file=sys.stderr, flush=True)
            runs[seed].train(trained_where(args))
        if args.only == "*":
            found[place.name], records[place.name] = result([*runs.values()]), dict(splits.record)
    if args.only != "*":
        return
    setting = {
        "backbone": BACKBONE,
        "input": [3, SIDE, SIDE],
        "crops": [*GRID],
        "places": [*PLACES],
        "training": TRAINING,
        "heads_training": {**HEADS, "steps": STEPS},
    }
    about = {"name": "Beijing-BRT", "records": records}
    trained = trained_in(args.work / "0-0")
    publish("crops", {"data": about, "setting": setting, "trained": trained, "seeds": args.seeds, "splits": found})


if __name__ == "__main__":
    main()
