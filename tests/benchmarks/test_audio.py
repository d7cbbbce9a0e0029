"""Exits for sound: clips cut by speaker, and the road from clips to a picture on a handful of tones."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from benchmarks.audio import training as module
from benchmarks.audio.clips import folds_of
from benchmarks.audio.picture import draw
from benchmarks.audio.plan import EQUAL, TAUGHT, Field, heads, networks
from benchmarks.audio.result import result
from benchmarks.audio.timed import timed
from benchmarks.audio.training import Work
from benchmarks.deploy import Files

from offramp.cost import profile

RATE, SPEAKERS = 4_000, tuple("abcdefgh")
ARGS = {"in_chans": 1, "channels": [8, 8, 16, 16]}


def place(folds=()):
    options = {"sample_rate": RATE, "seconds": 0.25, "n_fft": 128}
    return Field("tones", "resnet18", ARGS, (1, 32, 40), 1, options, folds)


def tones(file, split=True, pitches=(300, 700, 1_500)):
    """Tones by eight speakers, ten times each; a clip of nobody now and then."""
    made, labels, who = [], [], []
    rng = np.random.default_rng(0)
    for i in range(240):
        wave = np.sin(2 * np.pi * pitches[i % len(pitches)] * np.arange(RATE // 4) / RATE) * 0.3
        clip = io.BytesIO()
        soundfile.write(clip, wave + 0.05 * rng.standard_normal(len(wave)), RATE, format="FLAC")
        made.append(np.frombuffer(clip.getvalue(), np.uint8))
        labels.append(i % len(pitches))
        who.append("" if split and i % 29 == 0 else SPEAKERS[i // 3 % 8])
    who = np.array(who)
    arrays = {
        "labels": np.array(labels, np.int8),
        "speaker": who,
        "classes": np.array([f"{pitch} Hz" for pitch in pitches]),
    }
    if split:
        names = np.where(np.isin(who, list("gh")), np.where(who == "g", "validation", "test"), "train")
        arrays["split"] = names
    offsets = np.cumsum([0, *map(len, made)])
    np.savez(file, bytes=np.concatenate(made), offsets=offsets, **arrays)
    return str(file)


def test_no_speaker_stands_on_two_sides(tmp_path):
    file = tones(tmp_path / "t.npz", split=False)
    who = np.load(file)["speaker"]
    found = folds_of(place(SPEAKERS), file)
    assert list(found) == list(SPEAKERS)
    for number, (tested, fold) in enumerate(found.items()):
        parts = fold.splits.parts
        assert len(parts["test"]) == (who == tested).sum()
        assert len(parts["validation"]) == (who == SPEAKERS[(number + 1) % 8]).sum()
        assert sum(map(len, parts.values())) == len(who)
        trained = who[~np.isin(who, [tested, SPEAKERS[(number + 1) % 8]])]
        assert sorted([*fold.few, *fold.others]) == list(range(len(trained)))
        assert not {*trained[fold.few]} & {*trained[fold.others]}
        assert len({*trained[fold.few]}) == 2, "a quarter of six, rounded"


def test_a_file_with_splits_is_one_fold_and_clips_of_nobody_are_lots_of_their_own(tmp_path):
    (fold,) = folds_of(place(), tones(tmp_path / "t.npz")).values()
    arrays = np.load(tmp_path / "t.npz")
    trained = arrays["speaker"][arrays["split"] == "train"]
    assert not {*trained[fold.few]} & {*trained[fold.others]} - {""}
    assert "" in trained[fold.others], "not all of silence is on one side"
    read = fold.splits.train.read(0)
    assert read.rate == RATE
    assert len(read.waveform) == RATE // 4


def test_equal_heads_cost_the_same(tmp_path):
    work = Work(place(), folds_of(place(), tones(tmp_path / "t.npz")), tmp_path, {})
    (run,) = [run for run in heads(place(), 1) if (run.kind, run.way) == (EQUAL, "all")]
    (other,) = [run for run in heads(place(), 1) if (run.kind, run.way) == ("sl-vit", "all")]
    own, wanted = (profile(work.heads(r), repeats=0).macs.heads for r in (run, other))
    one_filter = [a / n for a, n in zip(own, work.filters, strict=False)]
    assert all(abs(a - b) <= step for a, b, step in zip(own[:-1], wanted, one_filter, strict=False))


@pytest.mark.slow
def test_the_road_from_clips_to_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 4)
    monkeypatch.setattr(module, "HEADS", {**module.HEADS, "batch_size": 8})
    here, file = place(), tones(tmp_path / "t.npz")
    work = Work(here, folds_of(here, file), tmp_path / "work", {"device": "cpu", "workers": 0, "precision": "fp32"})
    whole, on_them = networks(here, 1), heads(here, 1)
    for run in whole:
        work.train(run)
        if run.exits:
            begun, learned = (w.state_dict() for w in (work.network(run), work.trained(run.alone)))
            assert all(torch.equal(begun[name], value) for name, value in learned.items()), "it begins as it ended"
    for run in on_them:
        work.train_heads(run)
    finals = [work.table(run, "test").of(-1) for run in on_them if run.network.seed == 0]
    assert all(torch.equal(final, finals[0]) for final in finals), "the network is the same under all heads"
    found = result(work, whole, on_them)
    assert found["static"]["clips"] == len(work.folds[""].splits.test)
    assert {(row["head"], row["way"]) for row in found["heads"]} == {(run.kind, run.way) for run in on_them}
    for row in found["heads"]:
        assert [e["after"] for e in row["exits"]] == list(here.places)
        assert all(e["interval"][0] <= e["accuracy"]["mean"] <= e["interval"][1] for e in row["exits"])
    assert found["copycat against few"].keys() == {*TAUGHT}
    assert sum(found["product"]["exit_shares"]) == pytest.approx(1)
    made = Files(work.trained(whole[-1]), work.folds[""].splits.train, tmp_path / "files")
    timing = timed("onnxruntime", made, work.folds[""].splits, 0.5, 1, (1, 4), 4, 1)
    for batch, row in timing["batches"].items():
        assert row["measured_speedup"] > 0, batch
        assert sum(row["exit_shares"]) == pytest.approx(1)
        assert row["change"]["interval"][0] <= row["change"]["mean"] <= row["change"]["interval"][1]
        assert row["policy"]["provenance"]["unit"] == "seconds"
    draw(found, "tones", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000


@pytest.mark.filterwarnings("ignore:the checkpoint start-0")
def test_every_fold_starts_from_the_network_of_another_field(tmp_path):
    """But for its classifier, which is new: the classes are others."""
    first, file = place(), tones(tmp_path / "t.npz")
    before = Work(first, folds_of(first, file), tmp_path / "first", {"device": "cpu"})
    (run,) = [run for run in networks(first, 1) if not run.exits]
    before.train(run)
    learned = before.trained(run).backbone.state_dict()
    second = replace(place(SPEAKERS), start="first")
    work = Work(second, folds_of(second, tones(tmp_path / "s.npz", False, (400, 900))), tmp_path / "second", {})
    for own in [own for own in networks(second, 1) if not own.exits][::4]:
        found = work.network(own).backbone.state_dict()
        same = {name for name, value in found.items() if torch.equal(value, learned[name])}
        assert found.keys() - same == {"model.fc.weight", "model.fc.bias"}
