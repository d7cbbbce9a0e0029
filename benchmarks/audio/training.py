"""Networks trained whole, and heads on them from what they compute, kept on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import offramp
from benchmarks._runs import TABLES, finish, finished, table, train_in_steps, weights
from benchmarks.audio.clips import Fold
from benchmarks.audio.plan import EQUAL, HEADS, PRODUCT, STEPS, Field, Heads, Network, training_of
from offramp import Exit
from offramp.artifact import save_table
from offramp.cost import profile
from offramp.data import loader
from offramp.inputs import LogMelInput
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.recipe import BackboneSection
from offramp.training import Stage
from offramp.training.objectives.copycat import Copycat
from offramp.training.objectives.frozen import Frozen
from offramp.training.objectives.self_distillation import SelfDistillation
from offramp.types import ExitTable


@dataclass(frozen=True)
class Work:
    """A field with its clips and the folder of its runs.

    Args:
        place: where the comparison takes place.
        folds: the clips.
        folder: for runs.
        where: ``device``, ``workers`` and ``precision`` of networks that are trained whole.
        checkpoint: weights that a pretrained network starts from.
    """

    place: Field
    folds: dict[str, Fold]
    folder: Path
    where: dict[str, Any]
    checkpoint: Path | None = None

    def network(self, run: Network) -> EarlyExitModel:
        """The network of a run before it learns, the same for the same seed; with exits it begins as it ended without
        them."""
        torch.manual_seed(run.seed)
        if not run.exits:
            return self._attached([], run)
        model = self._attached([Exit(after, PRODUCT) for after in self.place.places], run)
        model.load_state_dict(weights(self.folder / run.alone.name), strict=False)
        return model

    def trained(self, run: Network) -> EarlyExitModel:
        """A finished run's network."""
        model = self.network(run)
        model.load_state_dict(weights(self.folder / run.name))
        return model.eval()

    def train(self, run: Network) -> None:
        """Train a network where it stopped, and keep weights and tables."""
        objective = SelfDistillation(weights="final-doubled") if run.exits else "backbone"
        finish(
            self.folder / run.name,
            self.network(run),
            self.folds[run.fold].splits,
            objective,
            {**training_of(self.place, run.exits), "seed": run.seed},
            **self.where,
        )

    def heads(self, run: Heads) -> EarlyExitModel:
        """The network of a run with untrained heads; the same seed gives the same ones."""
        torch.manual_seed(run.network.seed)
        options = [{"filters": n} for n in self.filters] if run.kind == EQUAL else [{}] * len(self.filters)
        name = run.kind.partition(",")[0]
        model = self._attached(
            [Exit(after, name, own) for after, own in zip(self.place.places, options, strict=True)], run.network
        )
        if finished(self.folder / run.network.name):
            model.load_state_dict(weights(self.folder / run.network.name), strict=False)
        return model

    def train_heads(self, run: Heads) -> None:
        """Train heads from the features of a finished network, stage by stage, with as many steps as all others."""
        folder = self.folder / run.name
        if finished(folder):
            return
        model, fold = self.heads(run), self.folds[run.network.fold]
        features = offramp.Features(model, self.folder / run.network.name / "features")
        parts = {name: features.of(samples, name) for name, samples in fold.splits.parts.items()}
        labelled, goal = parts["train"] if run.way == "all" else parts["train"].take(fold.few), Frozen()
        stages = [Stage(goal)]
        if run.way == "copycat":
            copycat = Copycat(parts["train"].take(fold.others))
            stages = list(copycat.stages(features.model, labelled, folder / "taught"))
        shutil.rmtree(folder / "run", ignore_errors=True)  # seconds of work: begun anew
        settings = {**HEADS, "seed": run.network.seed, "device": "cpu"}
        train_in_steps(features.model, stages, labelled, STEPS, folder / "run", settings)
        for split in TABLES:
            save_table(
                offramp.tabulate(features.model, loader(parts[split], features.model.input, 256)),
                folder / f"{split}.safetensors",
            )
        shutil.rmtree(folder / "run")

    def table(self, run: Network | Heads, split: str) -> ExitTable:
        """What a finished run's exits said."""
        return table(self.folder / run.name, split)

    @cached_property
    def filters(self) -> list[int]:
        """For each place the filters with which ``cnn-ignore`` costs what ``sl-vit`` costs there."""
        first = Network(next(iter(self.folds)), 0)
        wanted = profile(self._attached([Exit(p, "sl-vit") for p in self.place.places], first), repeats=0)
        found = []
        for place, macs in zip(self.place.places, wanted.macs.heads, strict=False):
            one, two = (
                profile(self._attached([Exit(place, "cnn-ignore", {"filters": n})], first), repeats=0).macs.heads[0]
                for n in (1, 2)
            )
            found.append(max(1, round((macs - one) / (two - one)) + 1))
        return found

    def _attached(self, exits: list[Exit], run: Network) -> EarlyExitModel:
        splits = self.folds[run.fold].splits
        section = BackboneSection(
            name=self.place.backbone,
            args=dict(self.place.args),
            preprocessing={"input_size": self.place.size},
            checkpoint=self._start(run.seed),
        )
        inner = timm_model(section, len(splits.classes or ()))
        reads = LogMelInput.for_backbone(inner, self.place.size, **self.place.options)
        return offramp.attach(inner, exits, classes=splits.classes, model_input=reads)

    def _start(self, seed: int) -> Path | None:
        """The file of the weights that the backbone of a seed starts from; None where it starts from chance."""
        if not self.place.start:
            return self.checkpoint if self.place.pretrained else None
        file = self.folder / f"start-{seed}.safetensors"
        if not file.exists():
            found = weights(self.folder.parent / self.place.start / Network("", seed).name)
            before = "backbone.model."
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({k.removeprefix(before): v for k, v in found.items() if k.startswith(before)}, file)
        return file
