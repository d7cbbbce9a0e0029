"""Exits that hear and see: pairs of a degraded digit and a spoken one, and the road to a picture on miniatures."""

import io
import json

import numpy as np
import pytest
import soundfile
from benchmarks.audiovisual import pairs, plan, training
from benchmarks.audiovisual.pairs import degraded, digits, paired, silent, spoken
from benchmarks.audiovisual.picture import draw
from benchmarks.audiovisual.plan import SPEAKERS
from benchmarks.audiovisual.result import result

WHO = [name for pair in SPEAKERS for name in pair]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Bars, the longer the larger the digit, and tones, the higher."""
    folder, rng = tmp_path_factory.mktemp("digits"), np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 160), ("test", 40)):
        numbers = np.arange(n) % 10
        pixels = rng.integers(0, 40, (n, 28, 28), dtype=np.uint8)
        for i, number in enumerate(numbers):
            pixels[i, 4 : 6 + 2 * number, 6:20] += 180
        arrays |= {f"x_{name}": pixels, f"y_{name}": numbers}
    np.savez(folder / "images.npz", **arrays)
    made, labels, who = [], [], []
    for speaker in WHO:
        for digit in range(10):
            for _ in range(2):
                file = io.BytesIO()
                tone = np.sin(2 * np.pi * (200 + 300 * digit) * np.arange(3000) / 8000)
                soundfile.write(file, 0.3 * tone + rng.normal(0, 0.01, 3000), 8000, format="FLAC")
                made.append(np.frombuffer(file.getvalue(), np.uint8))
                labels.append(digit)
                who.append(speaker)
    np.savez(
        folder / "clips.npz",
        bytes=np.concatenate(made),
        offsets=np.cumsum([0, *map(len, made)]),
        labels=np.array(labels),
        speaker=np.array(who),
    )
    return str(folder / "images.npz"), str(folder / "clips.npz")


@pytest.fixture
def given(files, monkeypatch):
    monkeypatch.setattr(pairs, "PAIRS", {"train": 96, "validation": 48})
    return digits(*files)


def test_degraded_pictures_keep_as_much_as_was_asked_of_those_they_were_fitted_on():
    pixels = {"train": np.random.default_rng(0).integers(60, 190, (400, 8, 8)).astype(np.uint8)}
    pixels["train"][::2, :4] //= 4
    found, kept = degraded(pixels)
    before, after = (part.astype(float).reshape(400, -1).var(0).sum() for part in (pixels["train"], found["train"]))
    assert plan.ENERGY <= after / before < plan.ENERGY + 0.45
    assert kept == 1


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_of_one_digit_and_of_no_speaker_twice(given, seed):
    heard, seen = {}, {}
    for name, part in paired(given, seed).parts.items():
        heard[name], seen[name] = set(), set()
        for i in range(len(part)):
            pair = part.read(i)
            row = next(j for j in range(len(given.said)) if given.clips.read(j) is pair.clip)
            assert given.said[row] == part.targets[i]
            heard[name].add(str(given.speakers[row]))
            seen[name].add(np.asarray(pair.image).tobytes())
    assert heard["test"] == {SPEAKERS[seed][0]}
    assert heard["validation"] == {SPEAKERS[seed][1]}
    assert len(heard["train"]) == 4
    assert not heard["train"] & (heard["test"] | heard["validation"])
    alone = spoken(given, seed)
    assert {name: len(part) for name, part in alone.parts.items()} == {"train": 80, "validation": 20, "test": 20}
    assert silent(paired(given, seed).test).read(0).clip is None


@pytest.mark.slow
def test_the_road_from_digits_to_a_picture(given, tmp_path, monkeypatch):
    short = {"epochs": 2, "warmup_epochs": 0.0, "batch_size": 16}
    monkeypatch.setattr(training, "HEARING", {**plan.HEARING, **short, "mixing_epochs": 1})
    monkeypatch.setattr(training, "BOTH", {**plan.BOTH, **short})
    monkeypatch.setattr(training, "SIGHT", {**plan.SIGHT, "embed_dim": 32, "num_heads": 2})
    monkeypatch.setattr(training, "SOUND", {**plan.SOUND, "channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]})
    folders = [tmp_path / str(seed) for seed in range(2)]
    for seed, folder in enumerate(folders):
        training.train(folder, given, seed, {"device": "cpu", "workers": 0, "precision": "fp32"})
    found = result(folders, given)
    assert [row["reads"] for row in found["exits"]] == ["sight", "both"] * 3 + ["both"]
    for sight, both in zip(found["exits"][:6:2], found["exits"][1::2], strict=False):
        assert both["macs"] > sight["macs"] + 0.9 * found["sound"]["macs"]
        assert 0 <= both["without the clip"]["accuracy"]["mean"] <= 1
    never, always = found["policies"]["never"], found["policies"]["always"]
    assert never["heard"]["mean"] == 0
    assert always["heard"]["mean"] == 1
    assert never["macs"]["mean"] < always["macs"]["mean"]
    for policy in found["policies"].values():
        assert sum(policy["exit_shares"]) == pytest.approx(1)
    json.dumps(found)
    draw(found, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
