"""The whole road with the parts of the toy package, from the command line: python road.py FOLDER."""

import contextlib
import io
import json
import sys
from pathlib import Path

import yaml
from sklearn.datasets import load_digits

import offramp
from offramp.cli import main
from offramp.registry import TABLES
from offramp.testing import check_head, check_input, check_objective, check_policy, check_task

RECIPE = {
    "name": "toy",
    "data": {"source": "signals"},
    "input": {"name": "toy-signal", "options": {"scale": 16.0}},
    "backbone": {
        "name": "vit_tiny_patch16_224",
        "args": {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 32, "depth": 4, "num_heads": 2},
    },
    "exits": [{"after": 1, "head": "toy-mean"}, {"after": 2, "head": "toy-mean", "options": {"bias": False}}],
    "task": "toy-near",
    "objective": {"name": "toy-late"},
    "training": {"epochs": 25, "batch_size": 32, "learning_rate": 0.003, "precision": "fp32"},
    "goal": {"max_drop": 0.05},
}


def offramp_says(*arguments):
    sys.argv = ["offramp", *map(str, arguments)]
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    assert code == 0, arguments
    return said.getvalue()


def road(folder):
    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / "signals" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:04}.sig").write_text(" ".join(map(str, pixels.flatten())))
    (folder / "notes.txt").write_text("no signal")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "data": {"source": str(folder / "signals")}}))
    names = {kind: [r["name"] for r in json.loads(offramp_says("list", kind, "--json"))] for kind in TABLES}
    model, data = folder / "model", folder / "signals"
    trained = json.loads(offramp_says("train", folder / "recipe.yaml", "--out", model, "--device", "cpu", "--json"))
    policy = folder / "policy.json"
    goal = ("--rule", "toy-falling", "--max-drop", "5")
    offramp_says("calibrate", model, *goal, "--out", policy)
    loaded, _ = offramp.load(model)
    rule = offramp.policies.load_policy(policy)
    offramp.save(loaded, folder / "other", policy=rule)
    offramp_says("export", folder / "other", folder / "model.onnx")
    files = sorted(str(f) for f in data.rglob("*.sig"))[::90]
    answers = [
        json.loads(offramp_says("predict", "-m", m, *files, "--runtime", runtime, "--json"))
        for m, runtime in (
            (folder / "other", "torch"),
            (folder / "model.onnx", "onnxruntime"),
            (folder / "model.onnx", "openvino"),
        )
    ]
    evaluated = json.loads(offramp_says("evaluate", folder / "other", data, "--batch", "16", "--json"))
    check_head("toy-mean")
    check_task("toy-near")
    check_objective("toy-late")
    check_policy(type(rule)(0.7, (0, 1, 2)))
    check_input(loaded.input, files[0], folder / "notes.txt")
    return {
        "names": names,
        "trained": trained,
        "policy": json.loads(policy.read_text())["policy"],
        "answers": answers,
        "evaluated": evaluated,
        "config": json.loads((folder / "other" / "config.json").read_text()),
    }


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "result.json").write_text(json.dumps(road(place)))
