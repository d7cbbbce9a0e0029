"""offramp bench without data, and of exported files."""

import json

import numpy as np
import pytest
import torch
from helpers import tiny_model

import offramp
from offramp.artifact import load_artifact
from offramp.bench.file import bench_file, static_part
from offramp.bench.rows import bench_forced
from offramp.data.samples import from_pixels
from offramp.engine import open_runtime
from offramp.errors import UsageError
from offramp.export import export_onnx, export_static_onnx
from offramp.policies import save_policy
from offramp.policies.patience import Patience
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slowest

QUICK = ("--images", "32", "--rounds", "1", "--threads", "1", "--no-memory", "--json")


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """The small trained model as files of every kind."""
    folder = tmp_path_factory.mktemp("files")
    artifact = load_artifact(trained / "model")
    model, policy = artifact.model, artifact.policy
    some = model.input.example(16)
    export_onnx(model, folder / "plain.onnx", policy)
    export_onnx(model, folder / "int8.onnx", policy, int8=[some])
    export_onnx(model, folder / "pictures.onnx", policy, preprocess=True)
    export_onnx(model, folder / "patience.onnx", Patience(1, (0, 1)))
    export_static_onnx(model.backbone.model, some, folder / "static.onnx")
    return folder


def rows(answer):
    code, out, err = answer
    assert code == 0, err
    return json.loads(out)


def test_a_model_alone_is_timed_in_the_shares_that_its_policy_expects(trained, cli):
    artifact = load_artifact(trained / "model")
    expected = artifact.policy.provenance["expected"]
    found = rows(cli("bench", trained / "model", "--batch", "1", "--batch", "32", *QUICK))
    assert found["images"] == "random"
    assert found["shares"] == expected["exit_shares"]
    assert [row["batch"] for row in found["rows"]] == [1, 32]
    for row in found["rows"]:
        assert row["exit_shares"] == pytest.approx(expected["exit_shares"], abs=1 / 32)
        spent = np.dot(row["exit_shares"], artifact.costs.to_exit(artifact.policy.heads))
        assert row["macs_speedup"] == pytest.approx(artifact.costs.macs.static / spent)
        assert row["efficiency"] == pytest.approx(row["measured_speedup"] / row["macs_speedup"])
    quick = [word for word in QUICK if word != "--json"]
    code, out, _ = cli("bench", trained / "model", "--batch", "4", *quick)
    assert code == 0
    shares = " ".join(f"{100 * share:.1f}" for share in expected["exit_shares"])
    assert f"Exits forced on random images, in the shares {shares} %" in " ".join(out.split())


def test_in_pieces_the_answer_says_which(trained, cli):
    for piece, sizes in (("4", [4] * 3), ("auto", None)):
        (row,) = rows(cli("bench", trained / "model", "--batch", "8", "--piece", piece, *QUICK))["rows"]
        assert len(row["pieces"]["dynamic"]) == 3
        assert {row["pieces"]["static"], *row["pieces"]["dynamic"]} <= {1, 2, 4, 8}
        assert sizes is None or row["pieces"] == {"static": 4, "dynamic": sizes}
    quick = [word for word in QUICK if word != "--json"]
    code, out, _ = cli("bench", trained / "model", "--batch", "8", "--piece", "4", *quick)
    assert code == 0
    assert "Batch 8 in pieces: static 4, segments 4 4 4." in " ".join(out.split())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("of", ["shares", "data"])
def test_a_file_in_pieces(trained, files, cli, runtime, of):
    where = ("--shares", ".5,.25,.25") if of == "shares" else ("digits",)
    (row,) = rows(
        cli("bench", files / "plain.onnx", *where, "--batch", "8", "--piece", "4", "--runtime", runtime, *QUICK)
    )["rows"]
    assert row["pieces"] == {"static": 4, "dynamic": 4}


def test_an_exit_that_a_policy_leaves_off_does_not_run(trained, cli, tmp_path):
    policy = Threshold((None, 0.5), provenance={"expected": {"exit_shares": [0.0, 0.5, 0.5]}})
    save_policy(policy, tmp_path / "p.json")
    found = rows(cli("bench", trained / "model", "--policy", tmp_path / "p.json", "--batch", "8", *QUICK))
    costs = load_artifact(trained / "model").costs
    (row,) = found["rows"]
    assert row["exit_shares"] == [0.0, 0.5, 0.5]
    assert row["macs_speedup"] == pytest.approx(costs.macs.static / np.mean(costs.to_exit((1,))[1:]))
    model, ran = tiny_model(), []
    for k, head in enumerate(model.heads):
        head.register_forward_hook(lambda *_, k=k: ran.append(k))
    bench_forced(model, [0.0, 0.5, 0.0, 0.5], [4], 8, 1, asked=(1,))
    assert ran.count(0) == ran.count(2) == 1 < ran.count(1), "once, for their MACs"
    with pytest.raises(UsageError, match="nobody can leave at exit 0"):
        bench_forced(model, [0.5, 0.0, 0.0, 0.5], [4], 8, 1, asked=(1,))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["plain", "int8", "pictures"])
def test_a_file_alone(trained, files, cli, kind, runtime):
    artifact = load_artifact(trained / "model")
    shares = "0.25,0.5,0.25"
    batches = ("--batch", "1", "--batch", "16")
    arguments = ("bench", files / f"{kind}.onnx", *batches, "--runtime", runtime, *QUICK)
    found = rows(cli(*arguments, "--shares", shares, "--baseline", files / "static.onnx"))
    for row, batch in zip(found["rows"], (1, 16), strict=True):
        assert (row["runtime"], row["batch"]) == (runtime, batch)
        assert row["precision"] == ("int8" if kind == "int8" else "fp32")
        near = 0.2 if kind == "int8" else 0.04  # scores in int8 fall together
        assert row["exit_shares"] == pytest.approx([0.25, 0.5, 0.25], abs=near)
        spent = np.dot(row["exit_shares"], artifact.costs.to_exit((0, 1)))
        assert row["macs_speedup"] == pytest.approx(artifact.costs.macs.static / spent)
        assert {"static_ms", "dynamic_ms", "measured_speedup", "efficiency", "threads"} <= row.keys()
        assert f"{files / 'static.onnx'}_ms" in row
    expected = artifact.policy.provenance["expected"]["exit_shares"]
    assert rows(cli(*arguments))["shares"] == expected, "those of its own policy, if none are given"


def test_the_static_part_of_a_file_is_its_backbone_alone(trained, files):
    model = load_artifact(trained / "model").model
    session = open_runtime("onnxruntime", threads=1).open(files / "plain.onnx")
    x = model.input.example(8)
    with torch.inference_mode():
        expected = model.backbone.model.eval()(x)
    assert torch.allclose(static_part(session, {})(x), expected, atol=1e-4)


def test_a_file_runs_its_policy_on_data_as_the_model_does(trained, files, cli):
    arguments = ("digits", "--runtime", "onnxruntime", "--batch", "8", *QUICK)
    own = rows(cli("bench", trained / "model", *arguments))
    found = rows(cli("bench", files / "plain.onnx", *arguments))
    assert (found["images"], found["shares"]) == ("digits", None)
    assert found["rows"][0]["exit_shares"] == own["rows"][0]["exit_shares"]
    assert found["rows"][0]["macs_speedup"] == pytest.approx(own["rows"][0]["macs_speedup"])
    pictures = rows(cli("bench", files / "pictures.onnx", *arguments))
    assert pictures["rows"][0]["exit_shares"] == pytest.approx(own["rows"][0]["exit_shares"], abs=0.1)
    never = rows(cli("bench", files / "plain.onnx", *arguments, "--threshold", "1.0"))
    assert never["rows"][0]["exit_shares"][-1] >= found["rows"][0]["exit_shares"][-1]


def test_a_file_that_cannot_be_told_to_let_nobody_leave(files, cli):
    path = files / "patience.onnx"
    code, out, err = cli("bench", path, "digits", "--batch", "4", *QUICK)
    assert (code, out) == (2, "")
    assert "by --baseline" in err
    others = ("--baseline", files / "static.onnx", "--batch", "4")
    found = rows(cli("bench", path, "digits", *others, *QUICK))
    assert found["rows"][0]["static_ms"] > 0
    code, out, err = cli("bench", path, "--shares", ".5,.25,.25", *others, *QUICK)
    assert (code, out) == (2, "")
    assert "name data" in err


def test_pictures_of_different_sizes_are_timed_one_by_one(files):
    runtime = open_runtime("onnxruntime", threads=1)
    session = runtime.open(files / "pictures.onnx")
    samples = from_pixels(np.zeros((2, 9, 9), np.uint8), np.zeros(2, np.int64))
    wide = from_pixels(np.zeros((2, 9, 12), np.uint8), np.zeros(2, np.int64))
    both = type(samples)(lambda i: (samples if i % 2 else wide).read(i // 2), np.zeros(4, np.int64))
    (row,) = bench_file(session, runtime, session.file.policy, both, [1], 4, 1)
    assert row["batch"] == 1
    with pytest.raises(UsageError, match="images of different sizes"):
        bench_file(session, runtime, session.file.policy, both, [2], 4, 1)


def test_shares_that_nothing_can_have(files):
    runtime = open_runtime("onnxruntime", threads=1)
    session = runtime.open(files / "plain.onnx")
    for shares, message in (((0.5, 0.5), "2 shares for 2 early exits"), ((0.5, 0.2, 0.2), "sum to")):
        with pytest.raises(UsageError, match=message):
            bench_file(session, runtime, session.file.policy, shares, [1], 4, 1)
    (row,) = bench_file(session, runtime, session.file.policy, (1.0, 0.0, 0.0), [4], 8, 1)
    assert row["exit_shares"] == [1.0, 0.0, 0.0]
    (row,) = bench_file(session, runtime, session.file.policy, (0.0, 0.0, 1.0), [4], 8, 1)
    assert row["macs_speedup"] == pytest.approx(1.0), "no exit is on, no head runs"


WRONG = {
    "both": (2, ["MODEL", "digits", "--shares", ".5,.25,.25"], "not both"),
    "not calibrated": (2, ["MODEL", "--threshold", "0.5"], "expects no shares"),
    "file, not calibrated": (2, ["FILE", "--threshold", "0.5"], "expects no shares"),
    "no policy": (2, ["BARE"], "has no policy"),
    "numbers": (2, ["FILE", "--shares", "a,b"], "numbers with commas"),
    "piece": (2, ["MODEL", "--piece", "many"], "a number of samples from 1, or auto"),
    "no piece": (2, ["FILE", "--piece", "0"], "a number of samples from 1"),
    "no file": (1, ["missing.onnx"], "could not be read"),
    "baseline": (1, ["FILE", "--baseline", "PICTURES"], "does not take float32 images of one size"),
    "baseline, openvino": (1, ["FILE", "--runtime", "openvino", "--baseline", "PICTURES"], "does not take float32"),
    "another policy": (2, ["FILE", "--policy", "PATIENCE", "--shares", ".5,.25,.25"], "random images cannot be made"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_timed_is_said_in_one_sentence(case, trained, files, cli, tmp_path):
    code, arguments, sentence = WRONG[case]
    model = load_artifact(trained / "model").model
    offramp.save(model, tmp_path / "without")
    save_policy(Patience(1, (0, 1)), tmp_path / "patience.json")
    places = {
        "MODEL": trained / "model",
        "FILE": files / "plain.onnx",
        "BARE": tmp_path / "without",
        "PICTURES": files / "pictures.onnx",
        "PATIENCE": tmp_path / "patience.json",
    }
    got, out, err = cli("bench", *(places.get(a, a) for a in arguments))
    assert (got, out) == (code, "")
    assert sentence in " ".join(err.split())
    assert len(err.strip().splitlines()) == 1
