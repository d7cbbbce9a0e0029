"""A ViT that counts in crops, as the command line trains it, reads it and answers with it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers import points_file
from PIL import Image

import offramp
from offramp import UsageError
from offramp.data import in_crops, loader, open_splits
from offramp.inputs import PointsInput, cut
from offramp.pipeline import train_recipe
from offramp.protocol.form import Form
from offramp.recipe import check_recipe

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "python" / "count.py"
GRID = (3, 2)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A little trained on white dots; frames of several sizes, as files too."""
    folder, rng = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    images, points = [], []
    for i in range(40):
        height, width = 48 + i % 3, 32 + i % 5
        heads = rng.integers(2, 30, (i % 7, 2))
        pixels = rng.integers(60, 90, (height, width), dtype=np.uint8)
        for x, y in heads:
            pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
        images.append(pixels)
        points.append(heads)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    split = np.array(["train"] * 20 + ["validation"] * 10 + ["test"] * 10)
    points_file(folder / "crowds.npz", images, points, split=split)
    recipe = {
        "name": "crowds",
        "task": "counting",
        "data": {"source": str(folder / "crowds.npz")},
        "input": {"name": "points", "options": {"cell": 4, "spread": 1.5, "crops": [*GRID]}},
        "backbone": {
            "name": "vit_tiny_patch16_224",
            "args": {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 32, "depth": 3, "num_heads": 2},
            "preprocessing": {"mean": [0.5], "std": [0.5]},
        },
        "exits": [{"after": 1, "head": "cnn-add"}, {"after": 2}],
        "training": {
            "epochs": 6,
            "batch_size": 16,
            "learning_rate": 0.004,
            "precision": "fp32",
            "augment": {"scale": [1, 1], "ratio": [1, 1]},
        },
        "goal": {"max_drop": 0.3},
    }
    train_recipe(check_recipe(recipe), folder / "model", device="cpu")
    return folder


def test_a_crop_is_a_sample_everywhere(road, cli, tmp_path):
    model, policy = offramp.load(road / "model")
    assert model.input.crops == GRID
    code, said, error = cli("evaluate", road / "model", road / "crowds.npz", "--batch", "8", "--json")
    assert code == 0, error
    found = json.loads(said)
    assert found["samples"] == 10 * 6
    crops = in_crops(open_splits(road / "crowds.npz", kind="points").test, GRID)
    table = offramp.tabulate(model, loader(crops, model.input))
    trace = offramp.replay(policy, table)
    assert found["dynamic"]["value"] == pytest.approx(
        float((trace.output[:, 0] - table.targets).abs().mean()), abs=1e-3
    )
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    code, _, error = cli("calibrate", tmp_path / "m.onnx", road / "crowds.npz", "--max-drop", "0.3")
    assert code == 0, error


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_an_image_s_number_is_the_sum_over_its_crops(road, cli, tmp_path, batch):
    model, policy = offramp.load(road / "model")
    (tmp_path / "no.png").write_bytes(b"nothing")
    Image.new("L", (1, 1)).save(tmp_path / "small.png")
    photos = [road / "00.png", tmp_path / "no.png", road / "06.png", tmp_path / "small.png", road / "13.png"]
    out = [] if batch == 1 else ["--out", tmp_path / "answers.parquet", "--batch", batch]
    code, said, _ = cli("predict", "-m", road / "model", *photos, *out, "--json")
    assert code == 1
    rows = json.loads(said)
    prepare = model.input.transform()
    for photo, row in zip(photos, rows, strict=True):
        if photo.parent == tmp_path:
            assert {"no.png": "no.png", "small.png": "3 rows"}[photo.name] in row["error"]
            continue
        x = torch.stack([prepare(crop) for crop in cut(Image.open(photo), GRID)])
        live = offramp.run(model, x, policy)
        assert row["label"] == pytest.approx(float(live.output.sum()), abs=1e-3)
        assert row["exit"] == int(live.exit.max())
        assert row["score"] == pytest.approx(float(live.score.min()), abs=1e-4)
        assert row["ms"] > 0


def test_files_and_the_example_count_so_too(road, cli, tmp_path):
    model, policy = offramp.load(road / "model")
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    photos = [str(road / f"{i:02}.png") for i in range(7)]
    own = json.loads(cli("predict", "-m", road / "model", *photos, "--json")[1])
    filed = json.loads(cli("predict", "-m", tmp_path / "m.onnx", "--runtime", "onnxruntime", *photos, "--json")[1])
    said = subprocess.run([sys.executable, EXAMPLE, tmp_path / "m.onnx", *photos], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    example = [json.loads(line) for line in said.stdout.splitlines()]
    assert [row["exit"] for row in filed] == [row["exit"] for row in example] == [row["exit"] for row in own]
    numbers = pytest.approx([row["label"] for row in own], abs=0.02)
    assert [row["label"] for row in filed] == numbers
    assert [row["count"] for row in example] == numbers


def test_classes_have_no_sum():
    network = timm.create_model("resnet10t", num_classes=3)
    reads = PointsInput.for_backbone(network, (3, 176, 176), crops=(2, 2))
    with pytest.raises(UsageError, match="are summed, and classification has classes"):
        offramp.attach(network, [offramp.Exit(after=1)], model_input=reads)


def test_a_server_would_take_an_image_for_a_crop(road):
    model, _ = offramp.load(road / "model")
    with pytest.raises(UsageError, match="counts in crops of an image"):
        Form(model, 1)
