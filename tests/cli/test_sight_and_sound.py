"""Pictures with sound beside them, on the command line: a recipe with a side encoder, answers, a file, an example."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image

import offramp
from offramp import UsageError
from offramp.data import loader, open_splits
from offramp.engine import open_runtime
from offramp.pipeline import train_recipe
from offramp.recipe import check_recipe, read_recipe

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "python" / "see_and_hear.py"
RECIPE = {
    "name": "pairs",
    "input": {
        "name": "pair",
        "options": {
            "image": {"mean": [0.5], "std": [0.5], "crop_pct": 1.0, "interpolation": "bilinear"},
            "sound": {"input_size": [1, 32, 21], "sample_rate": 8000, "seconds": 0.5, "n_fft": 256},
        },
    },
    "backbone": {
        "name": "vit_tiny_patch16_224",
        "args": {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 32, "depth": 3, "num_heads": 2},
    },
    "side": {
        "name": "resnet18",
        "args": {"in_chans": 1, "channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]},
        "preprocessing": {"input_size": [1, 32, 21]},
    },
    "exits": [{"after": 1}, {"after": 1, "head": "sl-vit", "side": "append"}, {"after": 2, "head": "mlp"}],
    "final": {"head": "linear", "side": "film"},
    "training": {
        "epochs": 14,
        "batch_size": 16,
        "learning_rate": 0.003,
        "precision": "fp32",
        "augment": {"missing": 0.2, "sound": {"shift": 0.05}},
    },
    "goal": {"max_drop": 0.03},
}


def written(folder):
    """A picture says whether it is a or b, or c or d, and the tone which of the two; some pictures are silent."""
    rng = np.random.default_rng(0)
    for i in range(240):
        label = "abcd"[i % 4]
        (folder / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (16, 16), np.uint8)
        left = label in "ab"
        pixels[:, 0 if left else 8 : 8 if left else 16] += 150
        Image.fromarray(pixels).save(folder / label / f"{i:03}.png")
        if i % 12 >= 4:
            rate = (8_000, 16_000)[i % 2]
            times = np.arange(rate // 2) / rate
            wave = 0.2 * np.sin(2 * np.pi * (500 if label in "ac" else 1_800) * times) + rng.normal(0, 0.01, len(times))
            soundfile.write(folder / label / f"{i:03}{('.wav', '.FLAC')[i % 2]}", wave, rate)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    written(folder / "data")
    values = {**RECIPE, "data": {"source": str(folder / "data")}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    train_recipe(read_recipe(folder / "recipe.yaml"), folder / "model", device="cpu")
    return folder


def test_both_say_what_neither_says(road):
    model, _ = offramp.load(road / "model")
    test = open_splits(road / "data", kind="pair").test
    heard = np.array([test.read(i).clip is not None for i in range(len(test))])
    table = offramp.tabulate(model, loader(test, model.input))
    right = [(output.argmax(1) == table.targets).numpy() for output in table.each()]
    assert right[0].mean() < 0.75, "sight alone knows a pair of classes"
    assert right[1][heard].mean() > 0.85
    assert 0.2 < right[1][~heard].mean() < 0.8


def test_evaluated_exported_and_run_from_a_file(road, cli, tmp_path):
    code, said, error = cli("evaluate", road / "model", road / "data", "--batch", "8", "--json")
    assert code == 0, error
    found = json.loads(said)
    assert [row["head"] for row in found["exits"]] == ["linear", "sl-vit+append", "mlp", "final"]
    assert cli("export", road / "model", tmp_path / "m.onnx", "--preprocess")[0] == 0
    model, policy = offramp.load(road / "model")
    test = open_splits(road / "data", kind="pair").test
    for runtime in ("onnxruntime", "openvino"):
        session = open_runtime(runtime).open(tmp_path / "m.onnx")
        for i in (0, 1, 2, 3):
            prepared = tuple(part[None] for part in model.input.transform()(test.read(i)))
            expected = offramp.run(model, prepared, policy)
            assert torch.allclose(session(model.input.raw(test.read(i))).output, expected.output, atol=0.02)


def test_a_picture_is_answered_with_the_clip_beside_it_and_without(road, cli, tmp_path):
    for name in ("both", "alone", "broken", "twice"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes((road / "data" / "b" / "005.png").read_bytes())
    clip = (road / "data" / "b" / "005.FLAC").read_bytes()
    (tmp_path / "both" / "x.flac").write_bytes(clip)
    (tmp_path / "broken" / "x.wav").write_bytes(b"RIFF and nothing else")
    for ending in ("flac", "ogg"):
        (tmp_path / "twice" / f"x.{ending}").write_bytes(clip)
    files = [tmp_path / name / "x.png" for name in ("both", "alone", "broken", "twice")]
    code, said, error = cli("predict", "-m", road / "model", *files, "--json")
    assert code == 1
    assert "Traceback" not in error
    both, alone, broken, twice = json.loads(said)
    assert both["label"] == "b"
    assert both["score"] != alone["score"]
    assert alone["label"] in "ab"
    assert "x.wav could not be read as sound" in broken["error"]
    assert "has more than one clip beside it: x.flac, x.ogg" in twice["error"]


def test_the_example_answers_as_the_library_does(road, cli, tmp_path):
    model, policy = offramp.load(road / "model")
    offramp.export_onnx(model, tmp_path / "m.onnx", policy, preprocess=True)
    pairs = [[road / "data" / "a" / "004.png", road / "data" / "a" / "004.wav"], [road / "data" / "c" / "002.png"]]
    for pair in pairs:
        said = subprocess.run([sys.executable, EXAMPLE, tmp_path / "m.onnx", *pair], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        found = json.loads(said.stdout)
        (own,) = json.loads(cli("predict", "-m", road / "model", pair[0], "--json")[1])
        assert (found["label"], found["exit"]) == (own["label"], own["exit"])
        assert found["score"] == pytest.approx(own["score"], abs=0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": {"name": "resnet81"}}, r"side.name: .*did you mean 'resnet18'|side.name"),
        ({"exits": [{"after": 1, "side": "loud"}]}, r"exits.0.side"),
        ({"final": {"head": "linear", "side": "sideways"}}, r"final.side"),
    ],
)
def test_a_recipe_names_what_is_wrong_with_its_side(change, said):
    with pytest.raises(UsageError, match=said):
        check_recipe({**RECIPE, "data": {"source": "x"}, **change})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": {}}, "needs the input_size of its sound"),
        ({"video": {}}, "part of the input 'pair'.*video|no .*'video'"),
        ({"sound": {"input_size": [1, 32, 21], "hop": 3}}, "log-mel"),
    ],
)
def test_an_input_names_what_is_wrong_with_it(road, options, said, tmp_path):
    values = {**RECIPE, "data": {"source": str(road / "data")}, "input": {"name": "pair", "options": options}}
    with pytest.raises(UsageError, match=said):
        train_recipe(check_recipe(values), tmp_path / "model", device="cpu")
