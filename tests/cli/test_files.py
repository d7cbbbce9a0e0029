"""Verbs that write and run exported files, and runtimes by name."""

from __future__ import annotations

import json

import onnx
import pytest

from offramp.export.metadata import read_graph
from offramp.policies import save_policy
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    import offramp

    model, policy = offramp.load(trained / "model")
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    offramp.export_onnx(model, path, policy)
    return path


def test_export(trained, cli, tmp_path):
    code, out, _ = cli("export", trained / "model", tmp_path / "m.onnx", "--threshold", "0.5", "--json")
    assert code == 0
    assert json.loads(out)["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert cli("export", trained / "model", tmp_path / "none" / "m.onnx")[0] == 0, "folders are made"


def test_predict_with_a_file_is_predict_with_the_model(trained, exported, cli, photos):
    expected = json.loads(cli("predict", "-m", trained / "model", photos, "--json")[1])
    for runtime in ("onnxruntime", "openvino"):
        found = json.loads(cli("predict", "-m", exported, photos, "--runtime", runtime, "--json")[1])
        assert [(r["label"], r["exit"]) for r in found] == [(r["label"], r["exit"]) for r in expected]
    last = json.loads(cli("predict", "-m", exported, photos, "--threshold", "1.0", "--json")[1])
    assert {r["exit"] for r in last} <= {1, 2}


@pytest.mark.slowest
def test_a_runtime_by_name_evaluates_and_calibrates(trained, cli, tmp_path):
    code, out, _ = cli("evaluate", trained / "model", "digits", "--runtime", "onnxruntime", "--batch", "8", "--json")
    assert code == 0
    own = json.loads(cli("evaluate", trained / "model", "digits", "--batch", "8", "--json")[1])
    found = json.loads(out)
    assert found["runtime"] == "onnxruntime"
    assert found["dynamic"]["value"] == pytest.approx(own["dynamic"]["value"], abs=0.01)
    options = ("--max-drop", "1", "--runtime", "openvino", "--out", tmp_path / "p.json")
    assert cli("calibrate", trained / "model", "digits", *options)[0] == 0
    assert json.loads((tmp_path / "p.json").read_text())["provenance"]["data"]["runtime"] == "openvino"


@pytest.mark.slowest
def test_bench_in_a_runtime_against_a_baseline(trained, exported, cli):
    options = ("--batch", "2", "--images", "4", "--rounds", "1", "--runtime", "onnxruntime", "--threads", "1")
    code, out, _ = cli("bench", trained / "model", "--shares", "1,0,0", *options, "--baseline", exported, "--json")
    assert code == 0
    result = json.loads(out)
    (row,) = result["rows"]
    assert (row["runtime"], row["precision"], row["threads"], row["batch"]) == ("onnxruntime", "fp32", 1, 2)
    assert row[f"{exported}_ms"] > 0
    assert result["peak_memory"]["dynamic"]["run_mb"] > 0


def test_an_int8_file_is_calibrated_as_it_computes(trained, cli, tmp_path):
    path = tmp_path / "int8.onnx"
    options = ("--int8", "digits", "--threshold", "0.9")
    code, out, _ = cli("export", trained / "model", path, *options)
    assert code == 0
    assert "thresholds belong to a precision" in out
    assert any(node.op_type == "QuantizeLinear" for node in nodes(onnx.load(path).graph))
    before = path.read_bytes()
    code, out, err = cli("calibrate", path, "digits", "--max-drop", "2", "--json")
    assert code == 0, err
    policy = json.loads(out)
    assert policy["provenance"]["data"]["precision"] == "int8"
    assert policy["provenance"]["data"]["split"] == "validation"
    assert policy["provenance"]["samples"] == 360
    assert policy["provenance"]["expected"]["accuracy"] > 0.6
    assert path.read_bytes() != before
    proto, own = read_graph(path)
    assert list(own.policy.thresholds) == policy["thresholds"]
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}["thresholds"]
    assert stored == pytest.approx([2.0 if t is None else t for t in policy["thresholds"]])
    assert cli("calibrate", path, "--max-drop", "2")[0] == 2, "a file has no table of its own"


def test_a_file_with_the_exits_of_a_policy_alone(trained, exported, cli, photos, tmp_path):
    """Chosen for the file with all exits; it predicts the same, is smaller, and is not calibrated."""
    rule, small = tmp_path / "p.json", tmp_path / "small.onnx"
    save_policy(Threshold((None, 0.5)), rule)
    code, out, err = cli("export", trained / "model", small, "--policy", rule, "--fixed", "--json")
    assert code == 0, err
    assert json.loads(out)["bytes"] < exported.stat().st_size
    assert "with 1 of its 2 early exits" in " ".join(err.split())
    expected = json.loads(cli("predict", "-m", trained / "model", photos, "--policy", rule, "--json")[1])
    found = json.loads(cli("predict", "-m", small, photos, "--json")[1])
    assert [(r["label"], r["exit"]) for r in found] == [(r["label"], r["exit"]) for r in expected]
    before = small.read_bytes()
    for goal in (("--max-drop", "2"), ("--max-cost", "3ms", "--measure")):
        code, _, err = cli("calibrate", small, "digits", *goal)
        assert code == 2
        assert "holds only the exits that its policy asks" in " ".join(err.split())
    assert small.read_bytes() == before
    code, _, err = cli("predict", "-m", small, photos, "--threshold", "0.5")
    assert code == 2, "a threshold for exits that are not there"
    assert "export the model with it" in " ".join(err.split())


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


WRONG = {
    "no file": (["predict", "-m", "missing.onnx", "x.png"], "could not be read"),
    "not one": (["predict", "-m", "TEXT", "x.png"], "is no ONNX file"),
    "foreign": (["predict", "-m", "FOREIGN", "x.png"], "not exported by Offramp"),
    "changed": (["predict", "-m", "CHANGED", "x.png"], "was changed after it was exported"),
    "torch": (["predict", "-m", "FILE", "x.png", "--runtime", "torch-compiled"], "opens no files"),
    "runtime": (["predict", "-m", "FILE", "x.png", "--runtime", "onnx"], "did you mean 'onnxruntime'"),
    "precision": (["predict", "-m", "FILE", "x.png", "--precision", "bf16"], "computes in fp32, not in 'bf16'"),
    "nan": (["predict", "-m", "FILE", "x.png", "--threshold", "nan"], "thresholds lie between 0 and 1"),
    "own table": (["calibrate", "MODEL", "--max-drop", "1", "--runtime", "openvino"], "name the data"),
    "baseline": (["bench", "MODEL", "--shares", ".5,.25,.25", "--baseline", "vit"], "neither an .onnx file nor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_said_in_one_sentence(case, trained, exported, cli, tmp_path):
    arguments, sentence = WRONG[case]
    proto = onnx.load(exported)
    foreign, changed = onnx.ModelProto(), onnx.ModelProto()
    foreign.CopyFrom(proto)
    del foreign.metadata_props[:]
    changed.CopyFrom(proto)
    changed.graph.initializer[0].raw_data = bytes(len(changed.graph.initializer[0].raw_data))
    for name, content in (("FOREIGN", foreign), ("CHANGED", changed)):
        onnx.save(content, tmp_path / f"{name}.onnx")
    (tmp_path / "TEXT.onnx").write_text("not a model")
    paths = {name: tmp_path / f"{name}.onnx" for name in ("FOREIGN", "CHANGED", "TEXT")}
    paths |= {"FILE": exported, "MODEL": trained / "model"}
    code, _, err = cli(*(paths.get(a, a) for a in arguments))
    assert code in (1, 2)
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err
