"""An artifact is the old one or the new one, whole: for a reader beside a writer, and after a kill at any moment."""

import itertools
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


class Steps:
    """A thread that takes one step on the file system at a time, when it is allowed to."""

    def __init__(self, work):
        self.allowed, self.waiting = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False
        self.thread = threading.Thread(target=self._run, args=(work,))

    def start(self):
        """Up to before its first step."""
        self.thread.start()
        self.waiting.acquire()

    def _run(self, work):
        try:
            work()
        finally:
            self.over = True
            self.waiting.release()

    def gate(self):
        """In the thread, before a step."""
        self.waiting.release()
        self.allowed.acquire()

    def take(self, steps):
        """From outside: let it take so many steps, fewer where it ends before."""
        for _ in range(steps):
            if not self.over:
                self.allowed.release()
                self.waiting.acquire()


def test_whenever_a_writer_acts_a_reader_gets_one_version_whole(tmp_path, monkeypatch):
    """The writer takes some steps between any two of the reader's, more between any later two, the rest at the end."""
    own, writer, now = ("a", "b", "c"), None, {"tick": 0, "acts": {}}

    def save(version):
        with replacing(tmp_path, own) as new:
            for name in own:
                (new / name).write_text(str(version))

    def stepped(method):
        def call(*args, **kwargs):
            if writer is not None and threading.current_thread() is writer.thread:
                writer.gate()
            return method(*args, **kwargs)

        return call

    def ticked(method):
        def call(*args, **kwargs):
            if writer is not None and threading.current_thread() is not writer.thread:
                now["tick"] += 1
                writer.take(now["acts"].pop(now["tick"], 0))
            return method(*args, **kwargs)

        return call

    for name in ("rename", "replace", "unlink"):
        monkeypatch.setattr(Path, name, stepped(getattr(Path, name)))
    for name in ("stat", "read_bytes"):
        monkeypatch.setattr(Path, name, ticked(getattr(Path, name)))
    seen = set()
    for first, steps, pause in itertools.product(range(1, 12), range(1, 8), (1, 2, 4, 7)):
        save(1)
        now.update(tick=0, acts={first: steps, first + pause: 100})
        writer = Steps(lambda: save(2))
        writer.start()
        found = read_whole(tmp_path, own)
        writer.take(100)
        writer.thread.join()
        writer = None
        versions = {content for content in found.values()}
        assert found.keys() == {*own}
        assert len(versions) == 1, f"{steps} steps before step {first} of the reader, the rest {pause} later: {found}"
        seen |= versions
    assert seen == {b"1", b"2"}
