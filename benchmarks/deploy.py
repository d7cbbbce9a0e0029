"""What does leaving early buy in each runtime and precision, on a trained model and real data?

For each runtime and precision the same steps: a table of the exits on validation data as that runtime computes them, a
policy for at most a quarter of a point lost there, so that half a point is likely to hold elsewhere, then test data
once, in that runtime; the static backbone is the same network without exits, in the same runtime and precision, timed
in turn with the dynamic model. int8 files are quantised with training images. Smaller networks, trained by the same
recipe, may stand beside: ``--smaller FOLDER``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import offramp
from benchmarks import publish
from offramp.artifact import Artifact, load_artifact
from offramp.bench import macs_speedup, measure
from offramp.bench.rows import on_blank, spaced
from offramp.cost import profile
from offramp.data import Samples, Splits, loader
from offramp.engine import open_runtime, tabulate_file
from offramp.engine.file import FileSession
from offramp.engine.runtime import FileRuntime
from offramp.export import export_static_onnx
from offramp.model import EarlyExitModel
from offramp.pipeline import open_for, tabulate_samples
from offramp.policies import replay
from offramp.policies.threshold import Threshold
from offramp.report import bootstrap_interval

ALL = ("onnxruntime:fp32", "onnxruntime:int8", "openvino:fp32", "openvino:bf16", "openvino:int8")


class Files:
    """A model as files: with its exits and without, in fp32 and int8; each is exported once."""

    def __init__(self, model: EarlyExitModel, samples: Samples, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.images: list[Tensor] = [x for x, _ in loader(spaced(samples, 256), model.input, 32)]
        folder.mkdir(exist_ok=True)

    def at(self, precision: str, exits: bool) -> Path:
        """The file."""
        path = self.folder / f"{precision}-{exits}.onnx"
        model, int8 = self.model, self.images if precision == "int8" else None
        if not path.exists() and exits:
            offramp.export_onnx(model, path, Threshold((0.5,) * len(model.exits)), int8=int8)
        elif not path.exists():
            export_static_onnx(model.static, self.images[0], path, int8)
        return path


def row(
    name: str,
    files: Files,
    splits: Splits,
    max_drop: float,
    threads: int,
    batches: Sequence[int],
    images: int,
    rounds: int,
    smaller: Sequence[Path] = (),
) -> dict[str, Any]:
    """One runtime and precision.

    Args:
        name: as ``runtime:precision``.
        files: the model's.
        splits: the data.
        max_drop: the accuracy that may be lost on validation data.
        threads: of the runtime.
        batches: to time with.
        images: in a round.
        rounds: how often everything is timed.
        smaller: saved networks to time beside.
    """
    runtime_name, precision = name.split(":")
    runtime = open_runtime(runtime_name, "fp32" if precision == "int8" else precision, threads)
    assert isinstance(runtime, FileRuntime)
    model = files.model
    dynamic: FileSession = runtime.open(files.at(precision, True))
    static, _ = runtime.open_static(files.at(precision, False))
    costs = profile(model, repeats=0)
    tables = {}
    for split in ("validation", "test"):
        print(f"{name}: {split}", flush=True)
        samples = getattr(splits, split)
        tables[split] = tabulate_file(dynamic, runtime, loader(samples, model.input, 128))
    policy = offramp.calibrate(tables["validation"], costs, max_drop=max_drop)
    test = tables["test"]
    trace = replay(policy, test)
    right = model.task.quality(trace.output, test.targets).double()
    whole = model.task.quality(test.outputs[-1], test.targets).double()
    found: dict[str, Any] = {
        "runtime": runtime_name,
        "precision": precision,
        "threads": threads,
        "static": {"accuracy": float(whole.mean()), "interval": bootstrap_interval(whole.numpy())},
        "dynamic": {"accuracy": float(right.mean()), "interval": bootstrap_interval(right.numpy())},
        "change": {"mean": float((right - whole).mean()), "interval": bootstrap_interval((right - whole).numpy())},
        "macs_speedup": macs_speedup(costs, policy, trace),
        "exit_shares": (torch.bincount(trace.exit, minlength=len(model.after)) / len(test)).tolist(),
        "batches": {},
    }
    beside = {}
    for other in smaller:
        small = Files(load_artifact(other).model, splits.train, files.folder / other.name)
        call, shape = runtime.open_static(small.at(precision, False))
        beside[other.name] = on_blank(call, shape)
    for batch in batches:
        timed = spaced(splits.test, max(images, batch))
        work = [(x, policy) for x, _ in loader(timed, model.input, batch)]
        found["batches"][str(batch)] = measure(static, dynamic, work, rounds, baselines=beside).row()
    return found


def alternative(artifact: Artifact, data: str) -> dict[str, Any]:
    """A smaller static network: what it is, what it costs, and its accuracy in PyTorch."""
    model, splits = artifact.model, open_for(artifact, data)
    found = {
        "backbone": dict(artifact.record.get("recipe", {}).get("backbone", {})),
        "macs": profile(model, repeats=0).macs.static,
    }
    for split in ("validation", "test"):
        table = tabulate_samples(model, splits, split)
        right = model.task.quality(table.outputs[-1], table.targets).double().numpy()
        found[split] = {"accuracy": float(right.mean()), "interval": bootstrap_interval(right)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("cifar10"), help="a saved model, or one in the box")
    parser.add_argument("--data", required=True)
    parser.add_argument("--name", default="CIFAR-10 (JPEG copy)", help="what to call the data in the result")
    parser.add_argument("--runtimes", nargs="+", default=list(ALL), help="runtime:precision")
    parser.add_argument("--smaller", type=Path, nargs="*", default=[], help="saved smaller networks, timed beside")
    parser.add_argument("--max-drop", type=float, default=0.0025)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--images", type=int, default=256, help="images in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    artifact = load_artifact(args.model)
    splits = open_for(artifact, args.data)
    how = (args.max_drop, args.threads, args.batch, args.images, args.rounds, args.smaller)
    with tempfile.TemporaryDirectory() as folder:
        files = Files(artifact.model, splits.train, Path(folder))
        rows = [row(name, files, splits, *how) for name in args.runtimes]
    publish(
        "deploy",
        {
            "model": str(args.model),
            "data": {"name": args.name, **splits.record},
            "max_drop": args.max_drop,
            "rows": rows,
            "static_macs": profile(artifact.model, repeats=0).macs.static,
            "smaller": {other.name: alternative(load_artifact(other), args.data) for other in args.smaller},
        },
    )


if __name__ == "__main__":
    main()
