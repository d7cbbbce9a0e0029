"""The whole road with sound, on the command line: clips of low and high tones, a model, a file that takes windows."""

import io
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
from offramp.data import loader, open_splits
from offramp.engine import open_runtime
from offramp.training.objectives.copycat import Copycat

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"

RECIPE = {
    "name": "tones",
    "input": {"name": "log-mel", "options": {"sample_rate": 8_000, "seconds": 0.5, "n_fft": 256}},
    "backbone": {
        "name": "resnet18",
        "args": {"in_chans": 1, "channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]},
        "preprocessing": {"input_size": [1, 32, 40]},
    },
    "exits": [{"after": 1, "head": "sl-vit"}, {"after": 2}],
    "training": {
        "epochs": 20,
        "batch_size": 16,
        "learning_rate": 0.003,
        "precision": "fp32",
        "augment": {"shift": 0.05, "noise": [10, 30], "bands": 4, "frames": 4},
    },
    "goal": {"max_drop": 0.05},
}


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    from offramp.pipeline import train_recipe
    from offramp.recipe import check_recipe

    folder, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(0)
    for name, (low, high) in {"high": (1_500, 3_000), "low": (200, 800)}.items():
        (folder / "clips" / name).mkdir(parents=True)
        for i in range(60):
            rate = (8_000, 16_000, 22_050)[i % 3]
            times = np.arange(round(rng.uniform(0.3, 0.8) * rate)) / rate
            wave = 0.2 * np.sin(2 * np.pi * rng.uniform(low, high) * times) + rng.normal(0, 0.01, len(times))
            soundfile.write(folder / "clips" / name / f"{i:02}{('.wav', '.flac')[i % 2]}", wave, rate)
    values = {**RECIPE, "data": {"source": str(folder / "clips")}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    train_recipe(check_recipe(values), folder / "model", device="cpu")
    return folder


def test_clips_are_answered_and_what_is_none_is_named(road, cli):
    (road / "broken.wav").write_bytes(b"RIFF and nothing else")
    clips = sorted(map(str, (road / "clips" / "low").iterdir()))[:5]
    code, said, error = cli("predict", "-m", road / "model", *clips, road / "broken.wav", "--json")
    rows = json.loads(said)
    assert code == 1
    assert [row.get("label") for row in rows] == ["low"] * 5 + [None]
    assert "broken.wav could not be read as sound" in rows[-1]["error"]
    assert "Traceback" not in error
    code, said, _ = cli("predict", "-m", road / "model", road / "clips", "--json")
    assert code == 0
    assert len(json.loads(said)) == 120


@pytest.mark.parametrize("source", ["digits", "pixels.npz", "jpeg.npz"])
def test_a_source_of_images_is_refused_in_one_sentence(road, cli, tmp_path, source):
    """One that gives pixels whatever is asked of it, and one whose files are no sound."""
    pixels, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "pixels.npz", x_train=pixels, y_train=labels)
    file = io.BytesIO()
    Image.fromarray(pixels[0]).save(file, "jpeg")
    joined = np.frombuffer(20 * file.getvalue(), np.uint8)
    np.savez(tmp_path / "jpeg.npz", bytes=joined, offsets=np.arange(21) * file.tell(), labels=labels)
    at = source if source == "digits" else tmp_path / source
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "data": {"source": str(at)}}))
    for line in (
        ("train", tmp_path / "recipe.yaml", "--out", tmp_path / "model", "--device", "cpu"),
        ("evaluate", road / "model", at),
    ):
        code, _, error = cli(*line)
        assert code == 1
        assert "sound" in error or "digits has classes 0, 1" in error
        assert error.count("offramp: ") == 1
        assert "Traceback" not in error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_takes_windows_answers_as_the_model_does(road, cli, runtime):
    file = road / f"{runtime}.onnx"
    assert cli("export", road / "model", file, "--preprocess")[0] == 0
    model, policy = offramp.load(road / "model")
    session = open_runtime(runtime).open(file)
    splits = open_splits(road / "clips", kind="log-mel")
    (x, _) = next(iter(loader(splits.test, model.input)))
    expected = offramp.run(model, x, policy)
    windows = torch.cat([model.input.raw(splits.test.read(i)) for i in range(len(splits.test))])
    found = session(windows)
    assert torch.equal(found.exit, expected.exit)
    assert torch.allclose(found.output, expected.output, atol=1e-3)
    with pytest.raises(offramp.DataError, match=r"float32 waveforms of shape \(batch, 4000\)"):
        session(windows[:, :100])
    clips = sorted(map(str, (road / "clips" / "high").iterdir()))[:5]
    rows = json.loads(cli("predict", "-m", file, "--runtime", runtime, *clips, "--json")[1])
    assert [row["label"] for row in rows] == ["high"] * 5


def test_a_runtime_evaluates_on_clips(road, cli):
    clips, runtime = road / "clips", ("--runtime", "onnxruntime")
    own, found = (
        json.loads(cli("evaluate", road / "model", clips, "--batch", "8", *more, "--json")[1]) for more in ((), runtime)
    )
    assert found["samples"] == own["samples"] == 24
    assert found["static"]["value"] == own["static"]["value"]
    assert found["dynamic"]["exit_shares"] == pytest.approx(own["dynamic"]["exit_shares"])


@pytest.mark.parametrize("prepares", [True, False], ids=["windows", "images"])
def test_a_file_is_calibrated_and_timed_on_clips(road, cli, tmp_path, prepares):
    file, clips = tmp_path / "m.onnx", road / "clips"
    assert cli("export", road / "model", file, *(["--preprocess"] if prepares else []))[0] == 0
    code, said, error = cli("calibrate", file, clips, "--max-drop", "10", "--json")
    assert code == 0, error
    found, own = json.loads(said)["provenance"], offramp.load(road / "model")[1].provenance
    assert found["data"]["split"] == "validation"
    assert found["expected"]["static_accuracy"] == own["expected"]["static_accuracy"]
    code, said, error = cli("bench", file, clips, "--batch", "4", "--images", "8", "--json")
    assert code == 0, error
    assert json.loads(said)["rows"][0]["batch"] == 4


def test_the_example_hears_as_the_library_does(road, cli, tmp_path):
    assert cli("export", road / "model", tmp_path / "m.onnx", "--preprocess")[0] == 0
    clips = [str(tmp_path / f"{n}.wav") for n in (1_000, 4_000, 9_000)]
    for clip, length in zip(clips, (1_000, 4_000, 9_000), strict=True):
        soundfile.write(clip, 0.2 * np.sin(2 * np.pi * 400 * np.arange(length) / 8_000), 8_000)
    script = EXAMPLES / "hear.py"
    said = subprocess.run([sys.executable, script, tmp_path / "m.onnx", *clips], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    found = [json.loads(line) for line in said.stdout.splitlines()]
    own = json.loads(cli("predict", "-m", road / "model", *clips, "--json")[1])
    assert [row["label"] for row in found] == [row["label"] for row in own]
    assert [row["exit"] for row in found] == [row["exit"] for row in own]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in own], abs=1e-3)
    soundfile.write(clips[0], np.zeros(100), 16_000)
    said = subprocess.run([sys.executable, script, tmp_path / "m.onnx", clips[0]], capture_output=True, text=True)
    assert said.returncode == 1
    assert "has 16000 samples a second, and the model hears 8000" in said.stderr


def test_the_transform_travels_with_the_model_and_replay_is_the_live_run(road, tmp_path):
    model, policy = offramp.load(road / "model")
    assert model.input == offramp.inputs.LogMelInput((1, 32, 40), 8_000, 0.5, 256)
    splits = open_splits(road / "clips", kind="log-mel")
    table = offramp.tabulate(model, loader(splits.test, model.input))
    x = torch.cat([x for x, _ in loader(splits.test, model.input)])
    live, replayed = offramp.run(model, x, policy), offramp.replay(policy, table)
    assert torch.equal(live.exit, replayed.exit)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert torch.equal(offramp.run(model, x[order], policy).exit, live.exit[order])


def test_copycat_learns_from_clips_without_labels(road, tmp_path):
    model, _ = offramp.load(road / "model")
    splits = open_splits(road / "clips", kind="log-mel")
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    objective = Copycat(splits.validation)
    options = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu"}
    offramp.train(model, splits.train, objective, folder=tmp_path, **options)
    assert all(torch.equal(before[k], v) for k, v in model.backbone.state_dict().items())
