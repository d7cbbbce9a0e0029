"""Does an exported file give the same answers where there is nothing but ONNX Runtime?

Exports the model in the box, makes a virtual environment, installs onnxruntime in it and nothing else, and runs the
file there on noise in batches of several sizes, none included. Each threshold is the median of its exit's scores on
noise, so that all exits are left through. Compared are outputs and exits with PyTorch's.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks import publish
from offramp.artifact import load_artifact
from offramp.policies.threshold import Threshold

BATCHES = (1, 3, 64, 0)
PROGRAM = """
import importlib.util
import sys

import numpy as np
import onnxruntime

assert not any(importlib.util.find_spec(name) for name in ("torch", "timm", "offramp", "onnx"))
file, given, found = sys.argv[1:]
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
answers = {}
for name, images in np.load(given).items():
    for key, value in zip(("output", "exit", "score"), session.run(["output", "exit", "score"], {"images": images})):
        answers[name + key] = value
np.savez(found, **answers)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("cifar10"), help="a saved model, or one in the box")
    args = parser.parse_args()
    model = load_artifact(args.model).model
    with torch.inference_mode():
        outputs = model(model.input.example(256))[:-1]
    policy = Threshold(tuple(float(model.task.score("confidence", output, None).median()) for output in outputs))
    images = {str(n): model.input.example(n) for n in BATCHES}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        offramp.export_onnx(model, folder / "model.onnx", policy)
        np.savez(folder / "given.npz", **{n: x.numpy() for n, x in images.items()})
        print("a virtual environment with onnxruntime", flush=True)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv/bin/python"
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "onnxruntime"]
        subprocess.run(install, check=True)
        command = [python, "-c", PROGRAM, folder / "model.onnx", folder / "given.npz", folder / "found.npz"]
        subprocess.run(command, check=True, cwd=folder)
        freeze = [python, "-m", "pip", "list", "--format=freeze"]
        installed = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.split()
        with np.load(folder / "found.npz") as found:
            for n, x in images.items():
                trace = offramp.run(model, x, policy)
                output, left = found[f"{n}output"], found[f"{n}exit"]
                assert output.shape == trace.output.shape
                rows.append(
                    {
                        "batch": int(n),
                        "same_exit": float((left == trace.exit.numpy()).mean()) if len(left) else None,
                        "largest_difference": float(np.abs(output - trace.output.numpy()).max(initial=0)),
                        "exits": np.bincount(left, minlength=len(model.after)).tolist(),
                    }
                )
    publish("fresh", {"model": str(args.model), "installed": installed, "rows": rows})


if __name__ == "__main__":
    main()
