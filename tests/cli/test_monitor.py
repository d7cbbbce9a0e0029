"""offramp monitor: what it reads, what it says, what it keeps."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from offramp.calibration import Monitor
from offramp.policies import save_policy
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow


def promised(loss="disagreement", method="ucb", **more):
    promise = {"method": method, "loss": loss, "risk": 0.05, "delta": 0.05, "digest": "abc", **more}
    return Threshold((0.9,), provenance={"guarantee": promise})


@pytest.fixture
def policy(tmp_path):
    save_policy(promised(), tmp_path / "policy.json")
    return tmp_path / "policy.json"


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def flips(n, share, seed=0):
    """Answers of which a share is another than the full model's."""
    changed = np.random.default_rng(seed).random(n) < share
    return [{"input": f"{i}.png", "label": "cat", "full": "dog" if c else "cat"} for i, c in enumerate(changed)]


def test_a_promise_that_holds_and_one_that_does_not(policy, cli, tmp_path):
    code, out, err = cli("monitor", policy, lines(tmp_path / "a.jsonl", flips(2000, 0.04)))
    assert (code, err) == (0, "")
    assert out.startswith("No alarm after 2,000 answers: another answer than the full model's in 4")
    answers = lines(tmp_path / "b.jsonl", flips(2000, 0.2))
    code, out, err = cli("monitor", policy, answers, "--json")
    result = json.loads(out)
    assert (code, err) == (3, "")
    assert result["alarm"]
    assert 1 <= result["at"] < 200
    assert result["samples"] == 2000
    assert result["mean"] == np.mean([row["label"] != row["full"] for row in flips(2000, 0.2)])
    assert (result["risk"], result["level"], result["loss"]) == (0.05, 0.05, "disagreement")
    assert result["confidence"] >= 0.95
    assert cli("monitor", policy, answers)[1].startswith(f"Alarm at answer {result['at']} of 2,000: with 95 % confid")


def test_two_calls_with_a_state_are_one(policy, cli, tmp_path):
    rows = [*flips(300, 0.05, 1), *flips(300, 0.3, 2)]
    whole = json.loads(cli("monitor", policy, lines(tmp_path / "all.jsonl", rows), "--json")[1])
    state = tmp_path / "watch.json"
    for number, part in enumerate((rows[:250], rows[250:310], [], rows[310:])):
        answers = lines(tmp_path / f"{number}.jsonl", part)
        code, out, _ = cli("monitor", policy, answers, "--state", state, "--json")
    assert code == 3
    found = json.loads(out)
    assert found["at"] == whole["at"] > 300
    assert found["wealth"] == pytest.approx(whole["wealth"])
    assert Monitor.from_json(json.loads(state.read_text())).samples == 600
    again = cli("monitor", policy, lines(tmp_path / "good.jsonl", flips(5, 0)), "--state", state)
    assert again[0] == 3
    assert "of 605" in again[1]


def test_a_state_of_another_promise_is_refused_and_stays(policy, cli, tmp_path):
    state, answers = tmp_path / "watch.json", lines(tmp_path / "a.jsonl", flips(5, 0))
    assert cli("monitor", policy, answers, "--state", state)[0] == 0
    before = state.read_bytes()
    save_policy(promised(digest="xyz"), tmp_path / "other.json")
    for arguments, what in (
        ((tmp_path / "other.json",), "its digest is abc, not xyz"),
        ((policy, "--risk", "0.1"), "its risk is 0.05, not 0.1"),
        ((policy, "--level", "0.01"), "its level is 0.05, not 0.01"),
        ((policy, "--risk", "0.05", "--loss", "error"), "its loss is disagreement, not error"),
    ):
        code, out, err = cli("monitor", arguments[0], answers, *arguments[1:], "--state", state)
        assert (code, out) == (2, "")
        assert what in " ".join(err.split())
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    ("loss", "row", "expected"),
    [
        ("disagreement", {"label": "cat", "full": "cat"}, 0),
        ("disagreement", {"label": 3, "full": 4}, 1),
        ("disagreement", {"label": 3, "full": 3.0, "truth": 5}, 0),
        ("disagreement", {"label": 3.25, "full": 3.5}, 1),
        ("gap", {"label": "cat", "full": "dog", "truth": "dog"}, 1),
        ("gap", {"label": "cat", "full": "dog", "truth": "cat"}, 0),
        ("gap", {"label": "cat", "full": "dog", "truth": "cow"}, 0),
        ("gap", {"label": "cat", "full": "cat", "truth": "dog"}, 0),
        ("error", {"label": "cat", "truth": "dog"}, 1),
        ("error", {"label": "cat", "truth": "cat", "full": "dog"}, 0),
        ("off-by-3", {"label": 9.5, "truth": 6, "full": 9.5}, 1),
        ("off-by-3", {"label": 9.0, "truth": 6}, 0),
        ("moved-by-0.5", {"label": 9.0, "truth": 9, "full": 9.6}, 1),
        ("moved-by-0.5", {"label": 9, "full": 9.5}, 0),
        ("brier", {"loss": 0.25}, 0.25),
        ("disagreement", {"loss": 1, "label": "cat", "full": "cat"}, 1),
    ],
)
def test_the_loss_of_a_line(loss, row, expected, cli, tmp_path):
    save_policy(promised("disagreement" if loss == "error" else loss), tmp_path / "p.json")
    own = ("--risk", "0.05", "--loss", "error") if loss == "error" else ()
    code, out, err = cli("monitor", tmp_path / "p.json", lines(tmp_path / "a.jsonl", [row]), "--json", *own)
    assert err == ""
    assert json.loads(out)["mean"] == expected
    assert code == (3 if json.loads(out)["alarm"] else 0)


def test_what_predict_prints_can_be_read_from_stdin(policy, cli, monkeypatch):
    rows = [*flips(9, 0), {"input": "bad.png", "error": "bad.png is no image"}]
    for text in (json.dumps(rows, indent=1), "\n".join(map(json.dumps, rows)), "\r\n\r\n" + json.dumps(rows)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        code, out, err = cli("monitor", policy, "-")
        assert (code, err) == (0, "")
        assert out.startswith("No alarm after 9 answers")
        assert "Passed over: 1 without an answer." in out


WRONG = {
    "neither": (1, '{"label": "cat"}', "line 2 of ANSWERS has no 'full': the loss 'disagreement' asks for label and"),
    "no label": (1, '{"full": "cat"}', "line 2 of ANSWERS has no 'label'"),
    "nan": (1, '{"loss": NaN}', "line 2 of ANSWERS is no JSON: NaN is no number of JSON's"),
    "infinite": (1, '{"loss": 1e999}', "line 2 of ANSWERS has the loss Infinity"),
    "above": (1, '{"loss": 1.5}', "line 2 of ANSWERS has the loss 1.5; losses lie between 0 and 1"),
    "below": (1, '{"loss": -0.1}', "losses lie between 0 and 1"),
    "huge": (1, '{"loss": 1' + "0" * 400 + "}", "losses lie between 0 and 1"),
    "true": (1, '{"loss": true}', "has the loss true"),
    "text": (1, '{"loss": "0"}', 'has the loss "0"'),
    "kinds": (1, '{"label": "7", "full": 7}', "a label and a full of which one is a name and the other a number"),
    "list": (1, '{"label": ["cat"], "full": "cat"}', 'has the label ["cat"]; it is a name or a number'),
    "null": (1, '{"label": null, "full": null}', "has the label null"),
    "no object": (1, "3", "line 2 of ANSWERS is no JSON object"),
    "half a line": (1, '{"loss": 0', "line 2 of ANSWERS is no JSON"),
    "deep": (1, '{"a":' * 100_000, "line 2 of ANSWERS is no JSON"),
    "bytes": (1, "\udcff\udcfe", "line 2 of ANSWERS is no JSON"),
}


@pytest.mark.parametrize(("code", "line", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_line_that_cannot_be_read_is_named_and_nothing_is_kept(code, line, sentence, policy, cli, tmp_path):
    state, answers = tmp_path / "w.json", tmp_path / "a.jsonl"
    assert cli("monitor", policy, lines(answers, flips(3, 0)), "--state", state)[0] == 0
    before = state.read_bytes()
    answers.write_bytes(b'{"loss": 0}\n' + line.encode("utf-8", "surrogateescape") + b"\n")
    got, out, err = cli("monitor", policy, answers, "--state", state)
    assert (got, out) == (code, "")
    assert err.startswith("offramp: ")
    assert sentence.replace("ANSWERS", str(answers)) in " ".join(err.split())
    assert state.read_bytes() == before


def test_what_cannot_be_watched_gets_one_sentence(policy, cli, tmp_path):
    answers = lines(tmp_path / "a.jsonl", flips(3, 0))
    save_policy(Threshold((0.5,)), tmp_path / "none.json")
    save_policy(promised(method="crc"), tmp_path / "crc.json")
    save_policy(promised("brier"), tmp_path / "brier.json")
    (tmp_path / "state.json").write_text('{"monitor": 1, "risk": 0.05}')
    for code, arguments, sentence in (
        (2, (tmp_path / "none.json", answers), "this policy promises nothing"),
        (2, (tmp_path / "crc.json", answers), "the mean over calibration sets"),
        (1, (tmp_path / "brier.json", answers), "labels do not tell the loss 'brier'"),
        (1, (tmp_path / "missing.json", answers), "no policy could be read"),
        (1, (policy, tmp_path / "missing.jsonl"), "no answers could be read"),
        (1, (policy, tmp_path), "no answers could be read"),
        (2, (policy, answers, "--level", "0"), "level is 0"),
        (2, (policy, answers, "--risk", "2"), "risk is 2"),
        (2, (policy, answers, "--loss", "error"), "give risk too"),
        (2, (policy, answers, "--risk", ".1", "--loss", "eror"), "did you mean 'error'"),
        (1, (policy, answers, "--state", tmp_path / "state.json"), "this is no monitor"),
    ):
        got, out, err = cli("monitor", *arguments)
        assert (got, out) == (code, ""), err
        assert sentence in " ".join(err.split())
        assert "Traceback" not in err
    watched = cli("monitor", tmp_path / "crc.json", answers, "--risk", "0.05")
    assert watched[0] == 0


def test_a_saved_model_and_an_exported_file_are_watched_by_their_own_promise(trained, cli, tmp_path):
    model, file = tmp_path / "model", tmp_path / "model.onnx"
    shutil.copytree(trained / "model", model)
    assert cli("calibrate", model, "--risk", "0.1", "--method", "ltt")[0] == 0
    assert cli("export", model, file)[0] == 0
    answers = lines(tmp_path / "a.jsonl", flips(20, 0))
    for source in (model, file):
        code, out, err = cli("monitor", source, answers, "--state", tmp_path / "watch.json", "--json")
        assert code == 0, err
        assert json.loads(out)["risk"] == 0.1
    assert json.loads(out)["samples"] == 40


def test_a_model_that_was_calibrated_for_a_risk_can_be_watched(trained, cli, tmp_path):
    """The whole way: calibrate, answer, run all of it to the end, watch."""
    promise = tmp_path / "promise.json"
    assert cli("calibrate", trained / "model", "--risk", "0.05", "--method", "ltt", "--out", promise)[0] == 0
    made = json.loads(promise.read_text())
    full = tmp_path / "full.json"
    full.write_text(json.dumps({**made, "thresholds": [None] * len(made["thresholds"])}))
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, digit in enumerate(load_digits().images[:40]):
        Image.fromarray((digit * 15).astype(np.uint8)).save(photos / f"{i:02}.png")
    early, late = (
        json.loads(cli("predict", "-m", trained / "model", photos, "--policy", p, "--json")[1]) for p in (promise, full)
    )
    rows = [{**a, "full": b["label"]} for a, b in zip(early, late, strict=True)]
    assert {row["exit"] for row in late} == {2}
    code, out, _ = cli("monitor", promise, lines(tmp_path / "a.jsonl", rows), "--json")
    result = json.loads(out)
    assert result["samples"] == 40
    assert result["mean"] == np.mean([a["label"] != b["label"] for a, b in zip(early, late, strict=True)])
    assert code == (3 if result["alarm"] else 0)
