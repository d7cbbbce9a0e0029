"""Where does the time of an int8 ViT go, and what is it beside bf16?

ViT-Ti/16 at 224 px with random weights, quantised as ``offramp export --int8`` does it, with ranges from noise: times
do not depend on either. For the network alone, and for the self-exiting file with no exit on and with all heads on:
every runtime and precision, timed in turn, as ratios to OpenVINO in bf16. Then, for the network alone, the time of each
kind of operation, as the runtimes' own profilers have it: of ``MatMul`` and its like, and of what stands between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import timm
import torch

import offramp
from benchmarks import publish
from offramp import Exit
from offramp.cost import in_turn
from offramp.engine import open_runtime
from offramp.engine.runtime import FileRuntime
from offramp.export import export_onnx, export_static_onnx
from offramp.policies.threshold import Threshold

BACKBONE = "vit_tiny_patch16_224"
AFTER = ((3, "lph"), (6, "lph"), (9, "gah"))
PLACES = (
    "openvino:bf16",
    "openvino:fp32",
    "openvino:int8",
    "openvino:int8-bf16",
    "onnxruntime:fp32",
    "onnxruntime:int8",
)
Call = Callable[[], Any]


def calls(place: str, files: Mapping[str, Path], x: torch.Tensor, threads: int) -> dict[str, Call]:
    """What is timed of one runtime and precision."""
    name, precision = place.split(":")
    runtime = open_runtime(name, "bf16" if precision.endswith("bf16") else "fp32", threads)
    assert isinstance(runtime, FileRuntime)
    kind = "int8" if "int8" in precision else "fp32"
    network, _ = runtime.open_static(files[f"{kind}, alone"])
    session = runtime.open(files[f"{kind}, file"])
    exits = len(AFTER)
    off, on = Threshold((None,) * exits), Threshold((1.0,) * exits)
    return {
        "alone": partial(network, x),
        "file, no exit on": partial(session, x, off),
        "file, all heads on": partial(session, x, on),
    }


def by_kind_openvino(file: Path, precision: str, x: np.ndarray, threads: int, runs: int) -> dict[str, float]:
    """Milliseconds of each kind of operation, with the type that it is computed in, in OpenVINO."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()
    found: list[dict[str, float]] = []
    for _ in range(runs + 1):
        request.infer(x)
        spent: dict[str, float] = defaultdict(float)
        for node in request.profiling_info:
            spent[f"{node.node_type} {node.exec_type.rsplit('_', 1)[-1]}"] += node.real_time.total_seconds() * 1000
        found.append(spent)
    return _medians(found[1:])


def by_kind_onnxruntime(file: Path, x: np.ndarray, threads: int, runs: int) -> dict[str, float]:
    """The same in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for _ in range(runs + 1):
            session.run(None, {session.get_inputs()[0].name: x})
        events = json.loads(Path(session.end_profiling()).read_text())
    found: list[dict[str, float]] = []
    for event in events:
        if event["name"] == "model_run":  # it stands behind its nodes, or before them: they are told apart by time
            found.append(defaultdict(float))
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            number = sum(start <= event["ts"] for start in starts) - 1
            found[number][event["args"]["op_name"]] += event["dur"] / 1000
    return _medians(found[1:])


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    kinds = {kind for run in runs for kind in run}
    medians = {kind: statistics.median(run.get(kind, 0.0) for run in runs) for kind in kinds}
    return dict(sorted(((k, ms) for k, ms in medians.items() if ms >= 0.01), key=lambda pair: -pair[1]))


def export_all(folder: Path, backbone: str, images: int) -> dict[str, Path]:
    """The network alone and the self-exiting file, in fp32 and int8."""
    model = offramp.attach(timm.create_model(backbone, num_classes=10), [Exit(*place) for place in AFTER]).eval()
    generator = torch.Generator().manual_seed(0)
    examples = [model.input.example(8, generator) for _ in range(max(images // 8, 1))]
    files = {}
    for kind, int8 in (("fp32", None), ("int8", examples)):
        files[f"{kind}, alone"], files[f"{kind}, file"] = folder / f"{kind}-alone.onnx", folder / f"{kind}-file.onnx"
        export_static_onnx(model.static, model.input.example(2), files[f"{kind}, alone"], int8)
        export_onnx(model, files[f"{kind}, file"], Threshold((0.5,) * len(AFTER)), int8=int8)
    return files


def run(backbone: str, batches: list[int], threads: int, rounds: int, images: int) -> dict[str, Any]:
    """Times and profiles."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows, kinds = [], []
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(Path(folder), backbone, images)
        size = timm.get_pretrained_cfg(backbone).input_size
        for batch in batches:
            x = torch.randn(batch, *size)
            turn = 16 if batch == 1 else 1
            ways = {
                f"{place}, {name}": [call] * turn
                for place in PLACES
                for name, call in calls(place, files, x, threads).items()
            }
            seconds = in_turn(ways, rounds, turn=turn, warm=int(turn > 1))
            for way, spent in seconds.items():
                place, name = way.split(", ", 1)
                base = seconds[f"{PLACES[0]}, {name}"]
                ratios = sorted(sum(s) / sum(b) for s, b in zip(spent, base, strict=True))
                rows.append(
                    {
                        "place": place,
                        "of": name,
                        "batch": batch,
                        "ms": 1000 * statistics.median(t for r in spent for t in r),
                        "over_bf16": statistics.median(ratios),
                        "range": [ratios[0], ratios[-1]],
                    }
                )
                print(f"{batch:3} {way:40} {rows[-1]['ms']:8.2f} ms  {rows[-1]['over_bf16']:.2f}", flush=True)
            for place in PLACES:
                name, precision = place.split(":")
                file = files["int8, alone" if "int8" in precision else "fp32, alone"]
                if name == "openvino":
                    hint = "bf16" if precision.endswith("bf16") else "f32"
                    found = by_kind_openvino(file, hint, x.numpy(), threads, 3 * rounds)
                else:
                    found = by_kind_onnxruntime(file, x.numpy(), threads, 3 * rounds)
                kinds.append({"place": place, "batch": batch, "ms_by_kind": found})
    return {"rows": rows, "profiles": kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = run(BACKBONE, args.batch, args.threads, args.rounds, 64)
    publish("int8", {"backbone": BACKBONE, "exits": AFTER, "threads": args.threads, **found})


if __name__ == "__main__":
    main()
