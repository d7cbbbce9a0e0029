"""offramp calibrate: seconds belong to where they were measured, and no option is dropped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

import offramp
from offramp.artifact import load_artifact, save
from offramp.versions import host

pytestmark = pytest.mark.slowest


@pytest.fixture
def model(trained, tmp_path):
    """A copy that a test may write to."""
    return shutil.copytree(trained / "model", tmp_path / "model")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    offramp.export_onnx(*offramp.load(trained / "model")[:1], path, offramp.load(trained / "model")[1])
    return path


@pytest.fixture(autouse=True)
def _threads():
    yield
    torch.set_num_threads(1)


def said(outcome) -> str:
    code, out, err = outcome
    assert out == ""
    assert "Traceback" not in err
    return f"{code} {' '.join(err.split())}"


DROPPED = {
    "confidence": (["--max-drop", "1", "--confidence", "0.9"], "confidence belongs to a promise about risk"),
    "method": (["--target-speedup", "1.1", "--method", "ltt"], "method belongs to a promise about risk"),
    "loss": (["--max-cost", "1GMACs", "--loss", "gap"], "loss belongs to a promise about risk"),
    "shared": (["--max-drop", "1", "--rule", "vote", "--shared"], "shared belongs to the rule 'threshold'"),
    "score": (["--max-drop", "1", "--rule", "patience", "--score", "margin"], "'patience' reads no score"),
    "rule": (["--max-cost", "1GMACs", "--rule", "vote"], "not for max_cost"),
    "unit": (["--max-cost", "3ms", "--unit", "macs"], "--max-cost 3ms is in seconds, and --unit says macs"),
    "measure": (["--max-drop", "1", "--measure"], "this goal counts MACs"),
}


@pytest.mark.parametrize("case", DROPPED)
def test_an_option_that_would_not_be_read_is_refused(case, trained, cli):
    options, sentence = DROPPED[case]
    found = said(cli("calibrate", trained / "model", *options))
    assert found.startswith("2 ")
    assert sentence in found


def test_seconds_of_another_place_are_refused(model, cli, tmp_path):
    artifact = load_artifact(model)
    options = ("--max-cost", "10s", "--out", tmp_path / "p.json")
    assert cli("calibrate", model, *options)[0] == 0, "measured here, in PyTorch, with as many threads"
    anew = "measure them with offramp.bench.profile_in, or with --measure on the command line"
    found = said(cli("calibrate", model, "digits", *options, "--runtime", "openvino", "--threads", "1"))
    assert found == f"2 offramp: the seconds were measured with runtime torch, not openvino: {anew}"
    found = said(cli("calibrate", model, "digits", *options, "--precision", "bf16"))
    assert found == f"2 offramp: the seconds were measured with precision fp32, not bf16: {anew}"
    found = said(cli("calibrate", model, *options, "--threads", "3"))
    assert found == f"2 offramp: the seconds were measured with threads 1, not 3: {anew}"
    torch.set_num_threads(1)
    elsewhere = {**artifact.costs.conditions, "host": {**host(), "processor": "Abacus"}}
    for costs, sentence in (
        (replace(artifact.costs, conditions=elsewhere), "with processor Abacus, not "),
        (replace(artifact.costs, seconds=None, p95=None), "holds no measured seconds"),
        (replace(artifact.costs, p95=None), "holds no measured seconds"),
    ):
        save(artifact.model, model, artifact.policy, artifact.table, costs, artifact.record)
        before = {f.name: f.read_bytes() for f in model.iterdir()}
        for goal in (("--max-cost", "10s"), ("--target-speedup", "1.1", "--unit", "seconds")):
            found = said(cli("calibrate", model, *goal))
            assert found.startswith("2 offramp: ")
            assert sentence in found
        assert {f.name: f.read_bytes() for f in model.iterdir()} == before
        assert cli("calibrate", model, "--target-speedup", "1.1")[0] == 0, "MACs are the same everywhere"


def test_measured_anew(model, cli):
    before = load_artifact(model).costs
    options = ("--max-cost", "10s", "--measure", "--threads", "1", "--json")
    code, out, err = cli("calibrate", model, "digits", *options, "--runtime", "openvino")
    assert code == 0, err
    provenance = json.loads(out)["provenance"]
    assert (provenance["measured"]["runtime"], provenance["data"]["runtime"]) == ("openvino", "openvino")
    assert provenance["unit"] == "seconds"
    assert load_artifact(model).costs == before, "kept: they are those of PyTorch"
    code, out, err = cli("calibrate", model, "digits", *options)
    assert code == 0, err
    measured = load_artifact(model).costs
    assert measured.macs == before.macs
    assert measured.seconds != before.seconds, "the same place, measured later"
    assert measured.seconds.stem == 0
    assert json.loads(out)["provenance"]["measured"] == measured.conditions


def test_the_models_own_table_is_of_a_runtime(model, cli):
    assert cli("calibrate", model, "digits", "--max-drop", "1", "--runtime", "onnxruntime")[0] == 0
    found = said(cli("calibrate", model, "--max-drop", "1"))
    assert "own table is of onnxruntime in fp32: name the data to calibrate torch in fp32 on" in found
    assert cli("calibrate", model, "--max-drop", "1", "--runtime", "onnxruntime")[0] == 0


def test_a_file_is_measured_where_it_is_opened(exported, cli, tmp_path):
    file = shutil.copy(exported, tmp_path / "m.onnx")
    found = said(cli("calibrate", file, "digits", "--max-cost", "10s"))
    assert "a file knows its MACs and no seconds: say --measure to time it here" in found
    code, out, err = cli("calibrate", file, "digits", "--max-cost", "10s", "--measure", "--threads", "1", "--json")
    assert code == 0, err
    assert json.loads(out)["provenance"]["measured"]["runtime"] == "onnxruntime"
    assert json.loads(out)["provenance"]["measured"]["threads"] == 1
    found = said(cli("calibrate", file, "digits", "--max-cost", "1e-6ms", "--measure", "--threads", "1"))
    assert "1 offramp: no exit costs at most 1e-09 seconds" in found
