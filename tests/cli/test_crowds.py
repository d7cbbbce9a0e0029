"""Counting what is marked, down the whole road: a map by a CNN and a number by a ViT, from points to a file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Killed, points_file
from PIL import Image

import offramp
from offramp.data import Samples, loader, open_splits
from offramp.engine import open_runtime
from offramp.pipeline import train_recipe
from offramp.policies.threshold import Threshold
from offramp.recipe import check_recipe
from offramp.training import Features
from offramp.training.objectives.copycat import Copycat

pytestmark = pytest.mark.slow

SIDE = 32
EXAMPLE = Path(__file__).parents[2] / "examples" / "python" / "count.py"
GREY = {"mean": [0.5], "std": [0.5]}
RECIPES = {
    "density": {
        "backbone": {
            "name": "resnet18",
            "args": {"in_chans": 1, "channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]},
            "preprocessing": {"input_size": [1, SIDE, SIDE], **GREY},
        },
        "exits": [{"after": 1, "head": "density", "options": {"widths": [8]}}, {"after": 2, "head": "density"}],
        "final": {"head": "density", "options": {"widths": [8]}},
    },
    "counting": {
        "backbone": {
            "name": "vit_tiny_patch16_224",
            "args": {"img_size": SIDE, "patch_size": 4, "in_chans": 1, "embed_dim": 32, "depth": 3, "num_heads": 2},
            "preprocessing": GREY,
        },
        "exits": [{"after": 1, "head": "cnn-add"}, {"after": 2}],
    },
}


def crowds(file):
    """White dots on grey, none to nine of them."""
    rng = np.random.default_rng(0)
    images, points = [], []
    for i in range(240):
        heads = rng.integers(2, SIDE - 2, (i % 10, 2))
        pixels = rng.integers(60, 90, (SIDE, SIDE), dtype=np.uint8)
        for x, y in heads:
            pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
        images.append(pixels)
        points.append(heads)
    split = np.array((["train"] * 8 + ["validation", "test"]) * 24)[rng.permutation(240)]
    points_file(file, images, points, split=split)


@pytest.fixture(scope="module", params=RECIPES)
def road(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    crowds(folder / "crowds.npz")
    recipe = {
        "name": "crowds",
        "task": request.param,
        "data": {"source": str(folder / "crowds.npz")},
        "input": {"name": "points", "options": {"cell": 4, "spread": 1.5}},
        "training": {
            "epochs": 9,
            "batch_size": 16,
            "learning_rate": 0.004,
            "precision": "fp32",
            "augment": {"scale": [0.6, 1.0]},
        },
        "goal": {"max_drop": 0.3},
        **RECIPES[request.param],
    }
    train_recipe(check_recipe(recipe), folder / "model", device="cpu")
    return folder


def test_it_learns_to_count(road):
    model, policy = offramp.load(road / "model")
    expected = policy.provenance["expected"]
    assert expected["static_mae"] < 1.7, "the mean number is 2.5 away from a number"
    assert expected["mae"] <= expected["static_mae"] + 0.3
    assert model.input == offramp.inputs.PointsInput(
        (1, SIDE, SIDE), model.input.interpolation, (0.5,), (0.5,), cell=4, spread=1.5
    )


def test_replay_is_the_live_run_in_any_order_and_a_file_does_the_same(road, tmp_path):
    model, policy = offramp.load(road / "model")
    splits = open_splits(road / "crowds.npz", kind="points")
    table = offramp.tabulate(model, loader(splits.test, model.input))
    x = torch.cat([x for x, _ in loader(splits.test, model.input)])
    moved = (table.of(1) - table.of(0))[:, 0].abs().sort().values
    second = 1 / (1 + float(moved[11:13].mean()))  # between two samples
    for rule in (policy, Threshold((1.0, second), "change")):
        live, replayed = offramp.run(model, x, rule), offramp.replay(rule, table)
        assert torch.equal(live.exit, replayed.exit)
        assert torch.allclose(live.output, replayed.output, atol=1e-4)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        assert torch.equal(offramp.run(model, x[order], rule).exit, live.exit[order])
        offramp.export_onnx(model, tmp_path / "m.onnx", rule)
        for runtime in ("onnxruntime", "openvino"):
            found = open_runtime(runtime).open(tmp_path / "m.onnx")(x)
            assert torch.equal(found.exit, live.exit), runtime
            assert torch.allclose(found.output, live.output, atol=1e-3), runtime


def test_heads_on_a_frozen_backbone_leave_it_and_learn_from_features_as_well(road, tmp_path):
    model, _ = offramp.load(road / "model")
    samples = open_splits(road / "crowds.npz", kind="points").train
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    options = {"epochs": 1, "batch_size": 16, "precision": "fp32", "device": "cpu"}
    offramp.train(model, samples, "frozen", folder=tmp_path / "run", augment={}, **options)
    offramp.train(model, samples, Copycat(labels="both"), folder=tmp_path / "copy", **{**options, "epochs": 2})
    features = Features(model, tmp_path / "features")
    offramp.train(features.model, features.of(samples, "train"), "frozen", folder=tmp_path / "from", **options)
    assert all(torch.equal(before[k], v) for k, v in model.backbone.state_dict().items())


def test_a_run_that_is_resumed_ends_as_one_that_was_not(road, tmp_path):
    samples = open_splits(road / "crowds.npz", kind="points").train
    options = {"batch_size": 16, "precision": "fp32", "device": "cpu", "augment": {}, "epochs": 1}
    options["checkpoint_seconds"] = 0.0
    ends = []
    for name, kills in (("one", False), ("two", True)):
        model, _ = offramp.load(road / "model")
        if kills:
            killed = Samples(Killed(samples.read, 100), samples.targets)
            with pytest.raises(KeyboardInterrupt):
                offramp.train(model, killed, folder=tmp_path / name, **options)
            model, _ = offramp.load(road / "model")
        offramp.train(model, samples, folder=tmp_path / name, **options)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][k], v) for k, v in ends[1].items())


def test_the_example_counts_as_the_library_does(road, cli, tmp_path):
    model, policy = offramp.load(road / "model")
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    samples, photos = open_splits(road / "crowds.npz").test, []
    for i in range(4):
        photos.append(str(tmp_path / f"{i}.png"))
        samples.read(i).resize((70, 50)).save(photos[-1])
    said = subprocess.run([sys.executable, EXAMPLE, tmp_path / "m.onnx", *photos], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    found = [json.loads(line) for line in said.stdout.splitlines()]
    own = json.loads(cli("predict", "-m", road / "model", *photos, "--json")[1])
    assert [row["exit"] for row in found] == [row["exit"] for row in own]
    assert [row["count"] for row in found] == pytest.approx([float(row["label"]) for row in own], abs=0.01)


def test_on_the_command_line(road, cli, tmp_path):
    Image.new("L", (40, 50), 80).save(tmp_path / "grey.png")
    rows = json.loads(cli("predict", "-m", road / "model", tmp_path / "grey.png", "--json")[1])
    assert abs(float(rows[0]["label"])) < 4
    code, said, error = cli("evaluate", road / "model", road / "crowds.npz", "--batch", "8", "--json")
    assert code == 0, error
    found = json.loads(said)
    assert found["static"]["metric"] == "mae"
    assert found["samples"] == 24
