"""What the verbs make of data that lacks something: a source of test samples alone, other labels, broken images."""

import io
import json
import sys

import numpy as np
import pytest
import yaml
from helpers import RECIPE, tiny_model
from PIL import Image

import offramp
from offramp.data import open_splits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The test samples of the digits, in a file that has no others."""
    path, test = tmp_path_factory.mktemp("data") / "alone.npz", open_splits("digits").test
    pixels = np.stack([np.asarray(test.read(i)) for i in range(len(test))])
    np.savez(path, x_test=pixels, y_test=test.targets, classes=[str(i) for i in range(10)])
    return path


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The trained model as an exported file."""
    model, policy = offramp.load(trained / "model")
    offramp.export_onnx(model, path := tmp_path_factory.mktemp("exported") / "model.onnx", policy)
    return path


def test_a_source_of_test_samples_alone_is_evaluated(trained, cli, alone):
    results = []
    for data in (alone, "digits"):
        code, out, err = cli("evaluate", trained / "model", data, "--json", "--device", "cpu")
        assert code == 0, err
        results.append(json.loads(out))
    own, whole = results
    assert own["data"] == "alone.npz"
    assert own["samples"] == whole["samples"] == 360
    for key in ("static", "exits", "policy"):
        assert own[key] == whole[key]
    assert own["dynamic"]["value"] == whole["dynamic"]["value"]
    assert own["dynamic"]["exit_shares"] == whole["dynamic"]["exit_shares"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "MODEL", "DATA", "--split", "validation", "--device", "cpu"),
        ("evaluate", "MODEL", "DATA", "--split", "train", "--device", "cpu"),
        ("calibrate", "MODEL", "DATA", "--max-drop", "1"),
        ("bench", "MODEL", "DATA", "--device", "cpu"),
        ("export", "MODEL", "OUT", "--int8", "DATA"),
        ("train", "RECIPE", "--out", "OUT", "--device", "cpu"),
    ],
    ids=["evaluate validation", "evaluate train", "calibrate", "bench", "export", "train"],
)
def test_a_split_that_a_source_does_not_have(trained, cli, alone, tmp_path, arguments):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out.onnx"
    recipe.write_text(yaml.safe_dump({**RECIPE, "data": {"source": str(alone)}}))
    places = {"MODEL": trained / "model", "DATA": alone, "RECIPE": recipe, "OUT": out}
    code, said, err = cli(*(places.get(a, a) for a in arguments))
    assert code == 1
    split = "validation" if {"validation", "calibrate", "bench"} & set(arguments) else "train"
    assert f"offramp: alone.npz has no {split} split, only test" in " ".join(err.split())
    assert said == ""
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_thousand_names_and_a_model_that_knows_none(cli, tmp_path):
    model = offramp.attach(tiny_model().backbone.model, [offramp.Exit(2)])
    model.backbone.model.reset_classifier(1000)
    model = offramp.attach(model.backbone.model, [offramp.Exit(2)])
    offramp.save(model, tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 16, 16), np.uint8)
    arrays = {"x_test": pixels, "y_test": np.arange(40) * 25, "classes": [f"class {i}" for i in range(1000)]}
    np.savez(tmp_path / "d.npz", **arrays)
    code, out, err = cli("evaluate", tmp_path / "model", tmp_path / "d.npz", "--threshold", "0.5", "--json")
    assert code == 0, err
    assert json.loads(out)["samples"] == 40


WRONG = {
    "too many classes": (
        {"y_test": np.arange(40), "classes": [str(i) for i in range(1000)]},
        "has 1000 classes; the model knows 10",
    ),
    "other names": (
        {"y_test": np.arange(40) % 10, "classes": [*"012345678", "ten"]},
        "has classes 0, 1, 2, 3, 4, 5, 6, 7, 8, ten; the model knows 0, 1",
    ),
    "too large": ({"y_test": np.arange(40)}, "has labels from 0 to 39; the model has 10 outputs, 0 to 9"),
    "below 0": ({"y_test": np.arange(40) % 10 - 1}, "has labels from -1 to 8; the model has 10 outputs"),
    "numbers": ({"y_test": np.arange(40) / 4}, "are float32, and a model of classes needs their numbers"),
}


@pytest.mark.parametrize(("labels", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_labels_that_are_not_the_models(trained, exported, cli, tmp_path, labels, sentence):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "d.npz", x_test=pixels, **labels)
    for verb in (["evaluate", trained / "model"], ["calibrate", exported, "--max-drop", "1"]):
        code, out, err = cli(*verb[:2], tmp_path / "d.npz", *verb[2:])
        assert code == 1
        assert sentence in " ".join(err.split())
        assert out == ""


def test_a_recipe_for_labels_without_names(cli, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (80, 8, 8), np.uint8)
    training = {**RECIPE["training"], "epochs": 1}
    for labels, code, words in ((np.arange(80) % 4, 0, ""), (np.arange(80) / 2, 1, "needs their numbers")):
        np.savez(tmp_path / "d.npz", x_train=pixels, y_train=labels)
        recipe = {**RECIPE, "data": {"source": str(tmp_path / "d.npz")}, "training": training}
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({**recipe, "goal": {"max_drop": 1.0}}))
        out = tmp_path / f"model-{code}"
        got, _, err = cli("train", tmp_path / "r.yaml", "--out", out, "--device", "cpu")
        assert got == code, err
        assert words in err
        assert out.exists() == (code == 0)
    assert offramp.load(tmp_path / "model-0")[0].num_outputs == 4


def test_predict_answers_all_that_can_be_answered(trained, cli, photos, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (photos / "5.tif").write_bytes((photos / "0.png").read_bytes()[:100])
    Image.new("LAB", (8, 8)).save(photos / "6.tif")
    Image.new("L", (1, 30_000)).save(photos / "7.png")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(buffer, "TIFF")
    (photos / "8.tif").write_bytes(buffer.getvalue()[:-300])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    inputs = ["nowhere.png", tmp_path / "empty", tmp_path / "*.jpg", "-", photos, photos / "0.png"]
    code, out, err = cli("predict", "-m", trained / "model", *inputs, "--json")
    assert code == 1
    rows = json.loads(out)
    assert len(rows) == 13
    answered = [row["input"] for row in rows if "label" in row]
    assert answered == [str(photos / f"{i}.png") for i in (0, 1, 2, 3, 0)]
    errors = [row["error"] for row in rows if "error" in row]
    expected = (
        "nowhere.png could not be read as an image: ",
        f"the folder {tmp_path / 'empty'} holds no images",
        f"nothing matches {tmp_path / '*.jpg'}",
        "the input is no image",
        f"{photos / '5.tif'} could not be read as an image: ",
        f"{photos / '6.tif'} has its colours in CIELAB",
        f"{photos / '7.png'} is 1 × 30000, one side more",
        f"{photos / '8.tif'} could not be read as an image: ",
    )
    assert len(errors) == len(expected)
    for error, begins in zip(errors, expected, strict=True):
        assert error.startswith(begins)
        assert "\n" not in error
    assert err.count("offramp: ") == len(errors)
