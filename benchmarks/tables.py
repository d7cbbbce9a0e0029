"""What does an exit table of ImageNet's size take, on disk, in time, in memory; and does it lead to the same policy?

A small ViT of nine blocks with exits after eight, 50,000 images of noise, 1,000 classes. Its classifiers are random and
sure of themselves, as those of a trained network are; the truth is what the final exit says, but for one image in five.
Each way is measured in a process of its own: write the table, read it, calibrate for a drop of a point, for a
MACs speed-up of 1.5, and for a risk with a promise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import offramp
from benchmarks import publish
from offramp.artifact import load_table, save_table
from offramp.bench.memory import peak_mb
from offramp.testing._small import SIZE, tiny_vit

DEPTH, BATCH = 9, 500
GOALS: dict[str, dict[str, Any]] = {
    "max_drop": {"max_drop": 0.01},
    "target_speedup": {"target_speedup": 1.5},
    "risk": {"risk": 0.05},
}


def network(classes: int) -> offramp.EarlyExitModel:
    """The network, with random classifiers that are sure."""
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(classes, depth=DEPTH, init_values=0.1), [offramp.Exit(k) for k in range(1, DEPTH)])
    with torch.no_grad():
        head = model.backbone.model.head.weight.normal_(std=0.4)
        for k, own in enumerate(model.heads):
            own.classifier.weight.copy_(head + torch.randn_like(head) * 0.5 * (1 - k / DEPTH))
    return model.eval()


def batches(model: offramp.EarlyExitModel, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Noise, and labels that the final exit gets right four times in five."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(0, samples, BATCH):
        x = torch.randn(BATCH, *SIZE, generator=generator)
        with torch.inference_mode():
            label = model(x)[-1].argmax(1)
        wrong = torch.rand(BATCH, generator=generator) < 0.2
        yield x, torch.where(wrong, torch.randint(model.num_outputs, (BATCH,), generator=generator), label)


def write(path: Path, samples: int, classes: int, compact: bool) -> dict[str, Any]:
    """Make the table and write it."""
    model = network(classes)
    start = time.perf_counter()
    table = offramp.tabulate(model, batches(model, samples), compact=compact)
    made = time.perf_counter()
    save_table(table, path)
    seconds = {"tabulate": made - start, "write": time.perf_counter() - made}
    return {"bytes": path.stat().st_size, "seconds": seconds, "peak_mb": peak_mb()}


def read(path: Path, classes: int) -> dict[str, Any]:
    """Read the table and calibrate on it."""
    start = time.perf_counter()
    table = load_table(path)
    seconds = {"read": time.perf_counter() - start}
    costs = offramp.profile(network(classes), repeats=0)
    policies = {}
    for name, goal in GOALS.items():
        start = time.perf_counter()
        policy: Any = offramp.calibrate(table, costs, **goal)
        seconds[name] = time.perf_counter() - start
        policies[name] = offramp.policies.policy_to_json(policy)
    return {"seconds": seconds, "peak_mb": peak_mb(), "policies": policies}


def compared(full: Path, compact: Path, found: dict[str, Any]) -> dict[str, Any]:
    """How far policies from the one table are from those of the other, on the full table."""
    tables = load_table(full), load_table(compact)
    answers = [int((tables[0].of(k).argmax(1) != tables[1].of(k).argmax(1)).sum()) for k in range(len(tables[0].after))]
    rows = {}
    for name in GOALS:
        a, b = (offramp.policies.policy_from_json(found[way]["policies"][name]) for way in ("full", "compact"))
        one, other = (offramp.replay(policy, tables[0]) for policy in (a, b))
        same = offramp.replay(b, tables[1])
        rows[name] = {
            "thresholds_full": list(a.thresholds),
            "thresholds_compact": list(b.thresholds),
            "samples_that_leave_elsewhere": int((one.exit != other.exit).sum()),
            "replayed_on_compact_elsewhere": int((same.exit != other.exit).sum()),
        }
    return {"answers_that_differ": answers, "policies": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.step == "read":
        print(json.dumps(read(args.file, args.classes)))
        return
    if args.step is not None:
        print(json.dumps(write(args.file, args.samples, args.classes, args.step == "compact")))
        return
    own = [sys.executable, "-m", "benchmarks.tables"]
    for name in ("samples", "classes", "threads"):
        own += [f"--{name}", str(getattr(args, name))]

    def step(way: str, file: Path) -> dict[str, Any]:
        print(f"{way} {file.stem}", file=sys.stderr, flush=True)
        done = subprocess.run([*own, "--step", way, "--file", str(file)], capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    with tempfile.TemporaryDirectory() as folder:
        files = {way: Path(folder) / f"{way}.safetensors" for way in ("full", "compact")}
        written = {way: step(way, file) for way, file in files.items()}
        found = {way: step("read", file) for way, file in files.items()}
        rows = [{"table": way, "written": written[way], "read": found[way]} for way in files]
        same = compared(files["full"], files["compact"], found)
    about = {"samples": args.samples, "classes": args.classes, "exits": DEPTH, "threads": args.threads}
    publish("tables", {**about, "rows": rows, "full_and_compact": same})


if __name__ == "__main__":
    main()
