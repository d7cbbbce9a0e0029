"""Peak memory of a run, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offramp._batches import Inputs
from offramp.engine.runtime import FileRuntime, Runtime, open_runtime
from offramp.errors import DataError
from offramp.inputs import input_from_json, input_to_json
from offramp.model import EarlyExitModel
from offramp.policies import Policy, policy_from_json, policy_to_json


def peak_memory(
    model: EarlyExitModel, policy: Policy, runtime: Runtime, batch: int, save: Callable[[Path], Any]
) -> dict[str, dict[str, float]] | None:
    """Peak memory of the static backbone and of the dynamic model, each in a fresh process that runs three batches.

    Args:
        model: the model.
        policy: who leaves where.
        runtime: what computes.
        batch: how many samples, of noise.
        save: writes the model as an artifact to a folder.

    Returns:
        For ``static`` and ``dynamic`` the peak of the whole process, ``peak_mb``, and ``run_mb``, what of it came after
        the libraries were loaded: weights and work. None on a system that does not tell (Windows).

    Raises:
        DataError: the process failed.
    """
    if peak_mb() is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = {
            "runtime": runtime.name,
            "precision": runtime.precision,
            "threads": runtime.threads,
            "input": input_to_json(model.input),
            "batch": batch,
            "policy": policy_to_json(policy),
            "folder": name,
        }
        if isinstance(runtime, FileRuntime):
            from offramp.export import export_onnx, export_static_onnx

            export_onnx(model, folder / "dynamic.onnx", policy)
            export_static_onnx(model.static, model.input.example(2), folder / "static.onnx")
        else:
            save(folder / "model")
        return {way: _child({**spec, "way": way}) for way in ("static", "dynamic")}


def _child(spec: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-c", "from offramp.bench.memory import main; main()", json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"the process that measures memory failed: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run what the arguments say and print the peak; the other side of ``peak_memory``."""
    spec = json.loads(sys.argv[1])
    runtime: Any = open_runtime(spec["runtime"], spec["precision"], spec["threads"])
    x = input_from_json(spec["input"]).example(spec["batch"])
    before = peak_mb()
    call = _opened(runtime, spec, x)
    for _ in range(3):
        call(x)
    peak = peak_mb()
    assert peak is not None
    assert before is not None
    print(json.dumps({"peak_mb": peak, "run_mb": peak - before}))


def _opened(runtime: Runtime | FileRuntime, spec: dict[str, Any], x: Inputs) -> Callable[[Any], Any]:
    folder = Path(spec["folder"])
    static, policy = spec["way"] == "static", policy_from_json(spec["policy"])
    if isinstance(runtime, FileRuntime):
        if static:
            return runtime.open_network(folder / "static.onnx")
        session = runtime.open(folder / "dynamic.onnx")
        return lambda x: session(x, policy)
    from offramp.artifact import load_artifact

    model = load_artifact(folder / "model").model
    return runtime.static(model.static, x) if static else runtime.dynamic(model, policy)


def peak_mb() -> float | None:
    """Megabytes; None where the system does not tell.

    Linux hands ``ru_maxrss`` on from the process that started this one, so its own book is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
