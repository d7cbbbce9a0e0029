"""The command line, verb by verb, on a small trained model."""

import io
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import RECIPE
from typer.main import get_command

from offramp.cli._app import app

pytestmark = pytest.mark.slow


def test_train_again_says_the_same(trained, cli):
    code, out, _ = cli("train", trained / "recipe.yaml", "--out", trained / "model", "--device", "cpu", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["samples"] == {"train": 1077, "validation": 360, "test": 360}
    assert result["validation"]["accuracy"] > 0.6


def test_train_with_another_recipe_into_the_same_run(trained, cli, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**RECIPE, "seed": 1}))
    code, _, err = cli("train", other, "--out", trained / "model", "--device", "cpu")
    assert code == 2
    assert "holds another run, with seed 0, not 1" in " ".join(err.split())


def test_evaluate(trained, cli):
    code, out, _ = cli("evaluate", trained / "model", "digits", "--json", "--device", "cpu")
    assert code == 0
    result = json.loads(out)
    assert {
        "model",
        "data",
        "split",
        "samples",
        "static",
        "dynamic",
        "exits",
        "policy",
        "runtime",
        "precision",
        "versions",
    } <= set(result)
    assert (result["data"], result["split"], result["samples"]) == ("digits", "test", 360)
    assert set(result["dynamic"]["speedup"]) == {"layers", "macs", "measured"}
    assert result["dynamic"]["speedup"]["macs"] > 1
    assert sum(result["dynamic"]["exit_shares"]) == pytest.approx(1)
    assert [e["after"] for e in result["exits"]] == [1, 2, 4]
    code, out, _ = cli("evaluate", trained / "model", "digits", "--device", "cpu")
    assert "measured speed-up" in out


def test_evaluate_with_other_classes(trained, cli, tmp_path):
    np.savez(
        tmp_path / "d.npz",
        x_train=np.zeros((20, 8, 8), np.uint8),
        y_train=np.arange(20) % 2,
        x_test=np.zeros((4, 8, 8), np.uint8),
        y_test=np.arange(4) % 2,
        classes=["a", "b"],
    )
    code, _, err = cli("evaluate", trained / "model", tmp_path / "d.npz")
    assert code == 1
    assert "has classes a, b; the model knows 0, 1" in err


def test_calibrate_to_a_file_and_evaluate_with_it(trained, cli, tmp_path):
    policy = tmp_path / "fast.json"
    code, out, _ = cli("calibrate", trained / "model", "--target-speedup", "1.5", "--out", policy, "--json")
    assert code == 0
    assert json.loads(out) == json.loads(policy.read_text())
    code, out, _ = cli(
        "evaluate",
        trained / "model",
        "digits",
        "--split",
        "validation",
        "--policy",
        policy,
        "--json",
        "--device",
        "cpu",
    )
    assert json.loads(out)["dynamic"]["speedup"]["macs"] >= 1.5


def test_calibrate_on_data_into_the_model(trained, cli):
    code, out, _ = cli("calibrate", trained / "model", "digits", "--max-drop", "3")
    assert code == 0
    assert "MACs speed-up" in out
    provenance = json.loads((trained / "model" / "policy.json").read_text())["provenance"]
    assert provenance["goal"] == {"max_drop": 0.03}
    assert provenance["data"]["split"] == "validation"


@pytest.mark.parametrize(
    "goal",
    [
        ("--max-cost", "100MMACs"),
        ("--max-cost", "10s"),
        ("--risk", "0.1", "--method", "crc", "--loss", "gap"),
        ("--target-speedup", "1.2", "--rule", "ensemble"),
        ("--target-speedup", "1.2", "--score", "margin", "--shared", "--unit", "seconds"),
    ],
)
def test_every_kind_of_goal(goal, trained, cli, tmp_path):
    code, out, err = cli(
        "calibrate", trained / "model", *goal, "--out", tmp_path / "p.json", "--plot", tmp_path / "p.png"
    )
    assert code == 0, err
    assert "speed-up" in out
    assert ("On average over calibration sets" in out) == (goal[0] == "--risk")
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_policies_in_one_table(trained, cli, tmp_path):
    for name, goal in (("a.json", ("--max-drop", "1")), ("b.json", ("--risk", "0.1", "--confidence", "0.9"))):
        assert cli("calibrate", trained / "model", *goal, "--out", tmp_path / name)[0] == 0
    both = ("--policy", tmp_path / "a.json", "--policy", tmp_path / "b.json", "--device", "cpu")
    code, out, _ = cli("evaluate", trained / "model", "digits", *both, "--json")
    assert code == 0
    results = json.loads(out)["policies"]
    assert [Path(name).name for name in results] == ["a.json", "b.json"]
    assert {"auroc", "ece", "brier"} <= set(results[str(tmp_path / "a.json")]["exits"][0])
    code, out, _ = cli("evaluate", trained / "model", "digits", *both)
    assert "guaranteed" in out
    assert "ucb" in out


def test_predict(trained, cli, photos, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((photos / "0.png").read_bytes())))
    code, out, _ = cli(
        "predict", "-m", trained / "model", photos, photos / "0.png", f"{photos}/[12].png", "-", "--json"
    )
    assert code == 0
    rows = json.loads(out)
    assert [Path(r["input"]).name for r in rows] == ["0.png", "1.png", "2.png", "3.png", "0.png", "1.png", "2.png", "-"]
    assert {"input", "label", "score", "exit", "ms"} <= set(rows[0])
    assert rows[0]["label"] == rows[4]["label"] == rows[7]["label"]
    assert rows[0]["label"] in "0123456789"
    assert all(0 <= r["score"] <= 1 and r["exit"] in (0, 1, 2) and r["ms"] > 0 for r in rows)


def test_predict_with_a_file_that_is_no_image(trained, cli, photos):
    (photos / "bad.png").write_text("not an image")
    code, out, err = cli("predict", "-m", trained / "model", photos, "--json")
    assert code == 1
    rows = json.loads(out)
    assert [("error" in r) for r in rows] == [False] * 4 + [True]
    assert "bad.png is no image" in rows[-1]["error"]
    code, out, err = cli("predict", "-m", trained / "model", photos, "missing.png")
    assert code == 1
    assert "bad.png is no image" in err.replace("\n", "")
    assert "missing.png" in err
    assert "3.png" in out


def test_predict_writes_parquet(trained, cli, photos):
    pq = pytest.importorskip("pyarrow.parquet")
    (photos / "bad.png").write_text("not an image")
    code, out, _ = cli(
        "predict", "-m", trained / "model", photos, "--out", photos / "a.parquet", "--batch", 3, "--json"
    )
    assert code == 1
    _, alone, _ = cli("predict", "-m", trained / "model", photos, "--json")
    for place, said in ((photos, "it is a folder"), (photos / "0.png" / "a.parquet", "could not be written")):
        code, nothing, err = cli("predict", "-m", trained / "model", photos, "--out", place)
        assert (code, nothing) == (1, "")
        assert said in " ".join(err.split())
    rows = pq.read_table(photos / "a.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if v is not None} for row in rows] == json.loads(out)
    for row, other in zip(rows, json.loads(alone), strict=True):
        assert all(row[key] == other[key] for key in other if key not in ("ms", "score"))
        assert row["score"] == pytest.approx(other.get("score"), abs=1e-5)


def test_bench(trained, cli):
    options = ["--batch", "1", "--batch", "8", "--images", "16", "--rounds", "2", "--device", "cpu", "--no-memory"]
    for source in (["digits"], ["--shares", ".5,.25,.25"]):
        code, out, _ = cli("bench", trained / "model", *source, *options, "--json")
        assert code == 0
        rows = json.loads(out)["rows"]
        assert [r["batch"] for r in rows] == [1, 8]
        wanted = {
            "static_ms",
            "dynamic_ms",
            "macs_speedup",
            "measured_speedup",
            "efficiency",
            "runtime",
            "precision",
            "threads",
        }
        assert wanted <= set(rows[0])
    assert "efficiency" in cli("bench", trained / "model", "--shares", ".5,.25,.25", *options)[1]


def test_list(cli):
    code, out, _ = cli("list", "heads", "--json")
    assert code == 0
    assert {"name", "paper", "about", "parameters", "macs"} == set(json.loads(out)[0])
    assert {"name", "paper", "about"} == set(json.loads(cli("list", "backbones", "--json")[1])[0])
    assert "linear" in cli("list", "heads")[1]


WRONG = {
    "unknown list": (2, ["list", "haeds"], "did you mean 'heads'"),
    "unknown verb": (2, ["predcit"], "No such command"),
    "no model": (1, ["evaluate", "nowhere", "digits"], "there is no artifact at nowhere"),
    "no data": (1, ["evaluate", "MODEL", "nowhere"], "there is no data at 'nowhere'"),
    "split": (2, ["evaluate", "MODEL", "digits", "--split", "tset"], "did you mean 'test'"),
    "threshold": (2, ["evaluate", "MODEL", "digits", "--threshold", "1.5"], "thresholds lie between 0 and 1"),
    "two policies": (2, ["evaluate", "MODEL", "digits", "--threshold", ".5", "--policy", "p"], "not both"),
    "policy file": (1, ["evaluate", "MODEL", "digits", "--policy", "nowhere.json"], "no policy could be read"),
    "no goal": (2, ["calibrate", "MODEL"], "exactly one goal"),
    "two goals": (2, ["calibrate", "MODEL", "--max-drop", "1", "--target-speedup", "2"], "exactly one goal"),
    "out of reach": (1, ["calibrate", "MODEL", "--target-speedup", "99"], "out of reach: the first exit alone gives"),
    "samples needed": (1, ["calibrate", "MODEL", "--risk", "0.001"], "are needed"),
    "cost": (2, ["calibrate", "MODEL", "--max-cost", "3 watts"], "such as 3ms"),
    "cost number": (2, ["calibrate", "MODEL", "--max-cost", "3e-ms"], "is no number"),
    "rule": (2, ["calibrate", "MODEL", "--max-drop", "1", "--rule", "ensembel"], "did you mean 'ensemble'"),
    "unit": (2, ["calibrate", "MODEL", "--max-drop", "1", "--unit", "watts"], "macs or seconds"),
    "empty folder": (1, ["predict", "-m", "MODEL", "EMPTY"], "holds no images"),
    "empty data": (1, ["evaluate", "MODEL", "EMPTY"], "holds no images"),
    "glob": (1, ["predict", "-m", "MODEL", "EMPTY/*.jpg"], "nothing matches"),
    "bench": (2, ["bench", "MODEL", "--threshold", "0.5"], "expects no shares of exits: name data, or give --shares"),
    "shares": (2, ["bench", "MODEL", "--shares", ".5,.5"], "2 shares for 2 early exits and the final one"),
    "shares text": (2, ["bench", "MODEL", "--shares", "a,b,c"], "numbers with commas"),
    "recipe": (2, ["train", "nowhere.yaml", "--out", "x"], "could not be read"),
    "device": (2, ["predict", "-m", "MODEL", "x.png", "--device", "tpu"], "auto, cpu, cuda"),
    "engine": (2, ["predict", "-m", "MODEL", "x.png", "--out", "o", "--engine", "dask"], "--engine is local or ray"),
    "engine's out": (2, ["predict", "-m", "MODEL", "x.png", "--engine", "ray"], "give --out"),
    "engine's file": (2, ["predict", "-m", "x.onnx", "x.png", "--out", "o", "--engine", "ray"], "a saved model"),
}
if not torch.cuda.is_available():
    WRONG["gpu"] = (2, ["predict", "-m", "MODEL", "x.png", "--device", "cuda"], "torch finds")


@pytest.mark.parametrize(("code", "arguments", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_bad_input_gets_one_sentence_and_its_code(trained, cli, tmp_path, code, arguments, sentence):
    (tmp_path / "empty").mkdir()
    places = {
        "MODEL": str(trained / "model"),
        "EMPTY": str(tmp_path / "empty"),
        "EMPTY/*.jpg": str(tmp_path / "empty/*.jpg"),
    }
    got, out, err = cli(*(places.get(a, a) for a in arguments))
    assert got == code
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""


def test_an_exit_out_of_range_in_a_recipe(cli, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "exits": [{"after": 9}]}))
    code, _, err = cli("train", recipe, "--out", tmp_path / "m", "--device", "cpu")
    assert code == 2
    assert "this backbone has 4 blocks" in err
    assert not (tmp_path / "m").exists()


def test_backbone_arguments_that_timm_refuses(cli, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "backbone": {"name": "vit_tiny_patch16_224", "args": {"dept": 3}}}))
    code, _, err = cli("train", recipe, "--out", tmp_path / "m")
    assert code == 2
    assert "timm could not build vit_tiny_patch16_224" in err


@pytest.mark.parametrize(
    "verb", ["demo", "train", "evaluate", "calibrate", "predict", "monitor", "export", "bench", "convert", "list"]
)
def test_every_verb_has_help_with_an_example_that_parses(cli, verb):
    code, out, _ = cli(verb, "--help")
    assert code == 0
    example = " ".join(out.split("Example:")[1].split())
    words = shlex.split(example)
    assert words[:2] == ["offramp", verb]
    get_command(app).commands[verb].make_context(verb, words[2:])
