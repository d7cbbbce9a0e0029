"""Training runs of a benchmark: trained where they stopped, kept as weights and tables, never trained twice."""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import offramp
from offramp.artifact import load_table, save_table
from offramp.data import Samples, Splits
from offramp.model import EarlyExitModel
from offramp.pipeline import tabulate_samples
from offramp.training import Stage
from offramp.types import ExitTable

TABLES = ("validation", "test")


def parser_of(
    summary: str | None, fields: Iterable[str], work: str, checkpoint: bool = True
) -> argparse.ArgumentParser:
    """The arguments of a benchmark that trains: where it takes place, from what, on what.

    Args:
        summary: what the command does.
        fields: where it may take place.
        work: where runs are kept where nothing else is said.
        checkpoint: whether it begins with a pretrained network.
    """
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("field", choices=fields)
    parser.add_argument("--data", required=True, help="an .npz file or folder, or torchvision/CIFAR10")
    if checkpoint:
        parser.add_argument("--checkpoint", type=Path, required=True, help="the pretrained network's weights")
    return training_options(parser, work)


def training_options(parser: argparse.ArgumentParser, work: str) -> argparse.ArgumentParser:
    """The same parser with what every benchmark that trains can be told: where runs are, which, on what.

    Args:
        parser: of the command.
        work: where runs are kept where nothing else is said.
    """
    parser.add_argument("--work", type=Path, default=Path(work), help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*", help="train the runs of this pattern, and write nothing")
    parser.add_argument("--device", default="cpu", help="to train on; what is timed is always the processor")
    parser.add_argument("--workers", type=int, default=0, help="processes that read samples")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="to train in")
    return parser


def trained_where(args: argparse.Namespace) -> dict[str, Any]:
    """Of these arguments those of ``finish``."""
    return {"device": args.device, "workers": args.workers, "precision": args.precision}


def train_all(plan: Sequence[Any], only: str, train: Callable[[Any], None]) -> bool:
    """Train the runs whose names are of a pattern, in order; whether those are all.

    Args:
        plan: runs, with names.
        only: the pattern.
        train: what trains one.
    """
    for number, run in enumerate(plan, start=1):
        if fnmatch.fnmatch(run.name, only):
            print(f"{number} of {len(plan)}: {run.name}", file=sys.stderr, flush=True)
            train(run)
    return only == "*"


def finish(
    folder: Path,
    model: EarlyExitModel,
    splits: Splits,
    objective: Any,
    settings: Mapping[str, Any],
    device: str = "cpu",
    workers: int = 0,
    precision: str = "fp32",
) -> None:
    """Train a model where it stopped, and keep its weights, its tables and where it was trained.

    A finished run is left alone.

    Args:
        folder: of the run.
        model: untrained.
        splits: to train on, and to read the exits on.
        objective: by what.
        settings: of ``offramp.train``.
        device: on which.
        workers: processes that read images.
        precision: in which, in place of that of the settings.
    """
    if finished(folder):
        return
    where = {"folder": folder / "run", "device": device, "workers": workers}
    settings = {**settings, "precision": precision}
    offramp.train(model, splits.train, objective, progress=True, **where, **settings)
    (folder / "trained.json").write_text(json.dumps({"device": device, "precision": precision}))
    save_file({k: v.cpu().contiguous().clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    for split in TABLES:
        save_table(tabulate_samples(model, splits, split, workers=workers), folder / f"{split}.safetensors")
    shutil.rmtree(folder / "run")


def train_in_steps(
    model: EarlyExitModel,
    stages: Sequence[Stage],
    samples: Samples,
    steps: int,
    folder: Path,
    settings: Mapping[str, Any],
) -> None:
    """Train stage by stage, with about as many steps in all whatever the number of samples in each.

    Args:
        model: whose heads or more learn.
        stages: by what; one without samples of its own takes ``samples``.
        samples: to train on.
        steps: of all stages together.
        folder: for the runs.
        settings: of ``offramp.train``, the batch size among them.
    """
    for number, stage in enumerate(stages):
        own = stage.samples or samples
        epochs = max(1, round(steps / len(stages) / (len(own) // settings["batch_size"])))
        offramp.train(model, own, stage.objective, folder=folder / str(number), epochs=epochs, **settings)


def trained_in(folder: Path) -> dict[str, Any] | None:
    """On what and in which precision a finished run was trained; None where that was not kept."""
    file = folder / "trained.json"
    return json.loads(file.read_text()) if file.exists() else None


def open_device(name: str) -> dict[str, Any]:
    """What is trained on; on a GPU, products of fp32 matrices are computed in TF32."""
    if name == "cpu":
        return {"device": name}
    torch.set_float32_matmul_precision("high")
    return {"device": torch.cuda.get_device_name(name), "products": "TF32"}


def over(values: Iterable[Any]) -> dict[str, Any]:
    """Mean and standard deviation of runs, and each of them."""
    found = [float(value) for value in values]
    deviation = statistics.stdev(found) if len(found) > 1 else None
    return {"mean": statistics.fmean(found), "deviation": deviation, "each": found}


def answered_right(found: ExitTable) -> np.ndarray:
    """Who was right, ``(exits, samples)``."""
    return np.stack([(output.argmax(1) == found.targets).double().numpy() for output in found.each()])


def finished(folder: Path) -> bool:
    """Whether a run was trained and read to its end."""
    return all((folder / f"{split}.safetensors").exists() for split in TABLES) and not (folder / "run").exists()


def has_weights(folder: Path) -> bool:
    """Whether what a finished run learned is there beside its tables."""
    return (folder / "model.safetensors").exists()


def weights(folder: Path) -> dict[str, Any]:
    """What a finished run learned."""
    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


def table(folder: Path, split: str) -> ExitTable:
    """What all exits of a finished run said on a split."""
    return load_table(folder / f"{split}.safetensors")
