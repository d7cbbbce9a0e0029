"""An artifact is the old one or the new one, whole: for a reader beside a writer, and after a kill at any moment."""

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from helpers import tiny_model

import offramp
from offramp import DataError
from offramp._folders import read_whole, replacing
from offramp.artifact import load_artifact

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills need fork, which this system does not have")
def test_killed_at_any_moment_the_old_or_the_new_is_there_and_nothing_else(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    command = [sys.executable, str(HERE / "kill_saves.py"), str(tmp_path), "50", str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["found"]) == 50
    assert set(result["found"]) == {0, 1}, "kills came before the new one was there, and after"
    assert result["left"] > 0, "some kills left something, which the next save took away"


def test_a_reader_beside_a_writer_sees_one_or_the_other(tmp_path):
    models = [tiny_model(seed=seed) for seed in range(2)]
    offramp.save(models[0], tmp_path / "m", record={"version": 0})
    stop = threading.Event()

    def write():
        version = 0
        while not stop.is_set():
            version = 1 - version
            offramp.save(models[version], tmp_path / "m", record={"version": version})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = set()
        for _ in range(40):
            artifact = load_artifact(tmp_path / "m")
            seen.add(version := artifact.record["version"])
            pairs = zip(artifact.model.parameters(), models[version].parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    finally:
        stop.set()
        writer.join()
    assert seen == {0, 1}


def test_a_file_that_cannot_be_written_leaves_the_old_ones(tmp_path):
    with replacing(tmp_path, ("a", "b")) as new:
        (new / "a").write_text("1")
        (new / "b").write_text("1")

    def fail():
        with replacing(tmp_path, ("a", "b")) as new:
            (new / "a").write_text("2")
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"nothing was changed.*No space left"):
        fail()
    assert read_whole(tmp_path, ("a", "b")) == {"a": b"1", "b": b"1"}
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "b"]
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "new", ("a",)) as new:
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()


def test_where_there_are_no_links_files_are_copied(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with replacing(tmp_path, ("a",)) as new:
        (new / "a").write_text("1")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("a", "1")]
