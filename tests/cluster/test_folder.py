"""Ray takes this machine for many: the rows of one process, none lost and none twice, whatever was interrupted."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.folder import compare, differ, rows_in
from PIL import Image

import offramp
from offramp.errors import DataError, UsageError

pytest.importorskip("ray")
from offramp.cluster.folder import Actors, Done, _reached, answer_files, files_in


def predict(*words, code=0):
    command = [sys.executable, "-m", "offramp", "predict", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    numbers = np.random.default_rng(1)
    for i in range(150):
        side = int(numbers.integers(20, 60))
        Image.fromarray(numbers.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{i:03d}.png")
    (folder / "077.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def compared(pictures, tmp_path_factory):
    work = tmp_path_factory.mktemp("answers")
    return work, compare(pictures, work, actors=2, batch=4, files=2)


@pytest.mark.slow
def test_actors_write_the_rows_of_one_process(pictures, tmp_path):
    some = sorted(pictures.iterdir())[70:80]
    predict(*some, "--out", tmp_path / "one.parquet", code=1)
    done = predict(*some, some[0], "--engine", "ray", "--actors", 2, "--out", tmp_path / "many", code=1)
    assert done == {"before": 0, "now": 10, "errors": 1}
    assert not differ(rows_in(tmp_path / "one.parquet"), rows_in(tmp_path / "many"))


@pytest.mark.slowest
def test_so_they_do_when_they_are_killed(compared):
    _, found = compared
    assert found["rows"] == {"one.parquet": 150, "many": 150, "again": 150}
    assert found["differ"] == {"many": 0, "again": 0}
    assert found["largest_difference_of_scores"] < 1e-5


@pytest.mark.slowest
def test_only_what_was_not_written_is_done_again(compared):
    killed = compared[1]["killed"]
    assert 0 < killed["written_before"] == killed["answered_before"] < 150
    assert killed["answered_after"] == 150 - killed["answered_before"]


@pytest.mark.slowest
def test_half_a_file_a_lost_one_and_new_pictures_are_what_is_missing(compared, pictures):
    work, _ = compared
    half, lost, *_ = sorted((work / "many").glob("*.parquet"))
    missing = len(rows_in(half)) + len(rows_in(lost))
    half.write_bytes(half.read_bytes()[:-20])
    lost.unlink()
    more = work / "more.png"
    more.write_bytes((pictures / "000.png").read_bytes())
    done = predict(pictures, more, "--engine", "ray", "--out", work / "many", code=1)
    assert done == {"before": 150 - missing, "now": missing + 1, "errors": 1}
    rows = [row for row in rows_in(work / "many") if row["input"] != str(more)]
    assert not differ(rows_in(work / "one.parquet"), rows)


def test_a_folder_of_other_answers_is_refused(pictures, tmp_path):
    model, policy = offramp.load("cifar10")
    answers, other = tmp_path / "answers", tmp_path / "other"
    assert answer_files(model, policy, [], str(answers)) == Done(0, 0, 0)
    assert answer_files(model, policy, [], f"file://{answers}") == Done(0, 0, 0)
    with pytest.raises(UsageError, match="answers of another model: policy differ"):
        answer_files(model, replace(policy, thresholds=(0.9,) * len(policy.thresholds)), ["x.png"], str(answers))
    weights = next(model.parameters())
    with torch.no_grad():
        weights += 1
    with pytest.raises(UsageError, match="answers of another model: weights differ"):
        answer_files(model, policy, ["x.png"], str(answers))
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else than answers"):
        answer_files(model, policy, ["x.png"], str(other))
    assert [file.name for file in other.iterdir()] == ["notes.txt"]
    (answers / "_about.json").write_text("{")
    with pytest.raises(DataError, match="could not be read"):
        answer_files(model, policy, ["x.png"], str(answers))
    with pytest.raises(UsageError, match="runtime"):
        answer_files(model, policy, ["x.png"], str(answers), Actors(runtime="none such"))


def test_files_elsewhere_are_listed_and_what_is_not_there_is_a_sentence(pictures, tmp_path):
    found = files_in(f"file://{pictures}", {".png"})
    assert len(found) == 150
    assert found[0] == f"file://{pictures}/000.png"
    assert files_in(found[3], {".png"}) == [found[3]]
    odd = tmp_path / "a b#c%20d"
    odd.mkdir()
    (odd / "é ?.png").write_bytes((pictures / "000.png").read_bytes())
    (name,) = files_in(odd.as_uri(), {".png"})
    assert _reached(name).read() == (pictures / "000.png").read_bytes()
    for wrong in ("file:///nowhere/at/all", "gopher://x/y"):
        with pytest.raises(DataError, match="could not be read"):
            files_in(wrong, {".png"})
    with pytest.raises(DataError, match="nothing that the model reads"):
        files_in(f"file://{pictures}", {".wav"})
