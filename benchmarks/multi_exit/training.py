"""The backbone and its features, and heads that learn from them."""

from __future__ import annotations

import shutil
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import offramp
from benchmarks.multi_exit.plan import BACKBONE, FINE_TUNING, HEADS, QUARTERS, Field, Run
from offramp import Exit, layouts
from offramp.artifact import load_table, save_table
from offramp.bench.rows import spaced
from offramp.data import Samples, Splits, loader, open_splits
from offramp.errors import Notice
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.recipe import BackboneSection
from offramp.types import ExitTable


def splits_of(place: Field, source: str) -> Splits:
    """The data: validation is cut off by seed, training and test images are spaced evenly over their classes."""
    splits = open_splits(source, place.validation, 0)
    parts = dict(splits.parts)
    for name, wanted in (("train", place.train), ("test", place.test)):
        if wanted is not None:
            parts[name] = spaced(parts[name], wanted)
    return Splits(parts, splits.classes, splits.record)


def backbone(place: Field, checkpoint: Path | None, classes: int) -> Any:
    """The timm model, from a file of weights or from random ones."""
    overlay = {"crop_pct": 1.0}
    section = BackboneSection(
        name=BACKBONE, args={"img_size": place.side}, preprocessing=overlay, checkpoint=checkpoint
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # it has another classifier, of course
        return timm_model(section, classes)


def fine_tune(
    place: Field, splits: Splits, checkpoint: Path, work: Path, device: str = "cpu", workers: int = 0
) -> Path:
    """The fine-tuned backbone as a file of weights, trained where it is not there yet."""
    file = work / "backbone.safetensors"
    if file.exists():
        return file
    torch.manual_seed(0)
    model = offramp.attach(backbone(place, checkpoint, len(splits.classes or ())), [])
    folder = work / "backbone"
    where = {"folder": folder, "device": device, "workers": workers}
    offramp.train(model, splits.train, "backbone", progress=True, **where, **FINE_TUNING)
    save_file({k: v.cpu().contiguous() for k, v in model.backbone.model.state_dict().items()}, file)
    shutil.rmtree(folder)
    return file


def build(run: Run, place: Field, weights: Path | None, classes: int) -> EarlyExitModel:
    """The model of a run; the same seed gives the same heads."""
    inner = backbone(place, weights, classes)
    torch.manual_seed(run.seed)
    exits = [e for e in layouts.multi_exit(inner, run.head, **run.options) if e.after in run.places]
    return offramp.attach(inner, exits)


class Cache:
    """Features of all blocks, computed once for all heads.

    Args:
        place: where the comparison takes place.
        splits: the data.
        weights: of the fine-tuned backbone.
        work: where they are kept.
        device: on which features are computed and heads learn.
    """

    def __init__(self, place: Field, splits: Splits, weights: Path, work: Path, device: str = "cpu") -> None:
        self.place, self.splits, self.weights, self.work, self.device = place, splits, weights, work, device
        whole = offramp.attach(self._inner(), layouts.every_block(self._inner())).to(device)
        every = offramp.Features(whole, work / "features")
        self.parts = {name: every.of(splits.of(name), name, progress=True) for name in splits.parts}

    def _inner(self) -> Any:
        return backbone(self.place, self.weights, len(self.splits.classes or ()))

    def train(self, run: Run) -> None:
        """Train the heads of a run, and keep their tables of validation and test data."""
        folder = self.work / run.name
        if (folder / "test.safetensors").exists():
            return
        model = build(run, self.place, self.weights, len(self.splits.classes or ()))
        features = offramp.Features(model, self.work / "features")
        parts = {name: features.of(samples, name) for name, samples in self.splits.parts.items()}
        offramp.train(
            features.model,
            parts["train"],
            folder=folder / "run",
            validation=parts["validation"],
            seed=run.seed,
            device=self.device,
            **HEADS,
        )
        for split in ("validation", "test"):
            table = offramp.tabulate(features.model, loader(parts[split], features.model.input, 256))
            save_table(table, folder / f"{split}.safetensors")
        shutil.rmtree(folder / "run")

    def table(self, run: Run, split: str) -> ExitTable:
        """What a finished run's exits said."""
        return load_table(self.work / run.name / f"{split}.safetensors")

    def check(self, images: int = 256) -> bool:
        """Whether features are the backbone's, bit for bit, rounded to fp16; the final exit's output in fp32."""
        model = offramp.attach(self._inner(), layouts.every_block(self._inner())).to(self.device).eval()
        rows = Samples(self.splits.train.read, self.splits.train.targets[:images])
        same = True
        for number, (x, _) in enumerate(loader(rows, model.input, 64)):
            first = 64 * number
            kept = [self.parts["train"].read(i) for i in range(first, first + len(x))]
            with torch.inference_mode():
                for k, h in model.states(x.to(self.device)):
                    same &= torch.equal(torch.stack([row[k] for row in kept]), h.half().cpu())
                same &= torch.equal(torch.stack([row[-1] for row in kept]), model.final(h).cpu())
        return same

    def times(self, rounds: int, images: int) -> list[dict[str, Any]]:
        """Seconds of an epoch through the backbone and from features, in turn, for heads after each quarter."""
        rows = []
        for head in ("linear", "cnn-add", "vit"):
            seconds: dict[str, list[float]] = {"backbone": [], "features": []}
            for _ in range(rounds):
                for way, spent in seconds.items():
                    spent.append(self._epoch(head, way, images))
            ratios = [a / b for a, b in zip(seconds["backbone"], seconds["features"], strict=True)]
            medians = {way: statistics.median(spent) for way, spent in seconds.items()}
            quicker = {"median": statistics.median(ratios), "range": [min(ratios), max(ratios)]}
            rows.append({"head": head, "images": images, "seconds": medians, "times_quicker": quicker})
        return rows

    def _epoch(self, head: str, way: str, images: int) -> float:
        inner = self._inner()
        model = offramp.attach(inner, [Exit(after, head) for after in QUARTERS])
        samples = self.splits.train
        if way == "features":
            features = offramp.Features(model, self.work / "features")
            samples, model = features.of(samples, "train"), features.model
        settings = {**HEADS, "schedule": "cosine", "epochs": 1}
        folder = self.work / "timed"
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        offramp.train(model, spaced(samples, images), folder=folder, device="cpu", **settings)
        spent = time.perf_counter() - start
        shutil.rmtree(folder)
        return spent
