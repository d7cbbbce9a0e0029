"""Progress: a bar for who looks, lines for a log, nothing on stdout."""

import io
import sys

import pytest
from helpers import squares, tiny_model

import offramp
from offramp import _progress
from offramp._progress import progress_bar, track

pytestmark = pytest.mark.slow

SETTINGS = {"batch_size": 16, "precision": "fp32", "device": "cpu"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def fit(folder, **settings):
    offramp.train(tiny_model(), squares(64), folder=folder, validation=squares(16), **{**SETTINGS, **settings})


@pytest.mark.parametrize(("objective", "stages"), [("joint", 1), ("mixed", 2)])
def test_a_log_has_exactly_one_line_an_epoch(tmp_path, capsys, objective, stages):
    fit(tmp_path, objective=objective, epochs=4, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 4
    assert [line.partition(", loss")[0].rpartition(": ")[2] for line in lines] == (
        [f"epoch {k} of 4" for k in range(1, 5)] if stages == 1 else ["epoch 1 of 2", "epoch 2 of 2"] * 2
    )
    assert all("loss " in line and "accuracy " in line and line.endswith(" s") for line in lines)
    assert all(len(line.partition("accuracy ")[2].split(",")[0].split()) == 4 for line in lines), "one for each exit"


def test_a_resumed_run_says_the_epochs_that_it_did(tmp_path, capsys, monkeypatch):
    from offramp.training import book

    save, saved = book.save_checkpoint, []

    def stop_after_two(*arguments):
        save(*arguments)
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(book, "save_checkpoint", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, epochs=4, progress=True)
    assert len(capsys.readouterr().err.splitlines()) == 2
    fit(tmp_path, epochs=4, progress=True)
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "training: epoch 3 of 4",
        "training: epoch 4 of 4",
    ]


def test_nothing_is_said_where_nothing_was_asked_for(tmp_path, capsys):
    fit(tmp_path, epochs=1)
    assert capsys.readouterr() == ("", "")


def test_long_work_says_where_it_is_twice_a_minute(monkeypatch, capsys):
    now = iter(range(0, 1000, 11))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(now)))
    assert list(track(range(12), "reading", 12)) == list(range(12))
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert len(lines) < 6
    assert all(line.startswith("reading: ") and line.endswith(" of 12") for line in lines)
    with progress_bar("reading", 3, show=False) as bar:
        bar(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    list(track(range(3), "reading", 3))
    assert "reading" in screen.getvalue()
    assert "3/3" in screen.getvalue()
