"""Exits that count: frames cut by camera and day, and the road from frames to a picture on a handful of them."""

import json

import numpy as np
import pytest
import timm
import torch
from benchmarks.counting import plan, training
from benchmarks.counting.frames import cut, everything
from benchmarks.counting.picture import draw
from benchmarks.counting.plan import EXITS, SPLITS
from benchmarks.counting.result import result
from benchmarks.counting.training import build, train
from benchmarks.crops import picture as crops_picture
from benchmarks.crops import result as crops_result
from benchmarks.crops import training as crops
from helpers import points_file
from safetensors.torch import save_file

from offramp.data import splits_in_crops

DAYS = [f"201704{day:02}" for day in (10, 11, 12, 13, 19)]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Two cameras on five days, six frames each, up to five heads."""
    rng = np.random.default_rng(0)
    names, images, points = [], [], []
    for i in range(60):
        names.append(f"{i % 2 + 1}-{DAYS[i // 2 % 5]}1200{i:02}")
        heads = rng.integers(0, (36, 64), (i % 6, 2))
        pixels = rng.integers(60, 90, (64, 36, 3), dtype=np.uint8)
        for x, y in heads:
            pixels[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = 255
        images.append(pixels)
        points.append(heads)
    file, split = tmp_path_factory.mktemp("frames") / "f.npz", np.where(rng.random(60) < 0.5, "train", "test")
    return str(points_file(file, images, points, split=split, names=np.array(names)))


def test_every_frame_keeps_its_camera_and_day(frames):
    arrays = np.load(frames)
    whole, cameras, days = everything(frames)
    counts = np.diff(arrays["point_offsets"])
    wanted = sorted((int(n[0]), n[2:10], int(c)) for n, c in zip(arrays["names"], counts, strict=True))
    assert sorted(zip(cameras.tolist(), days.tolist(), whole.targets.astype(int).tolist(), strict=True)) == wanted
    for i in (0, 17, 59):
        assert len(whole.read(i).points) == whole.targets[i]


@pytest.mark.parametrize("place", SPLITS, ids=lambda place: place.name)
def test_no_camera_and_no_day_stands_on_two_sides(frames, place):
    arrays = np.load(frames)
    place_of = {}
    for i, name in enumerate(arrays["names"]):
        place_of[arrays["bytes"][arrays["offsets"][i] : arrays["offsets"][i + 1]].tobytes()] = (name[0], name[2:10])
    splits = cut(place, frames)
    _, cameras, days = everything(frames)
    sizes = {name: len(part) for name, part in splits.parts.items()}
    assert sum(sizes.values()) == 60
    if place.tested is None:
        assert sizes["test"] == 30
        assert sizes["validation"] == 6, "one day of five"
    else:
        assert sizes["test"] == (days == place.tested).sum() == 12
        assert sizes["validation"] == 12
    assert len(set(place_of.values())) == 10
    assert len(cameras) == 60


@pytest.mark.slow
def test_the_road_from_frames_to_a_picture(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SIZE", (3, 64, 32))
    monkeypatch.setattr(training, "ARGS", {"output_stride": 8, "channels": [8, 8, 64, 64], "layers": [2, 2, 1, 1]})
    monkeypatch.setattr(training, "TRAINING", {**plan.TRAINING, "epochs": 2, "warmup_epochs": 0.0, "batch_size": 8})
    splits = cut(SPLITS[0], frames)
    folders = [tmp_path / f"0-{seed}" for seed in range(2)]
    for seed, folder in enumerate(folders):
        train(folder, splits, seed, {"device": "cpu", "workers": 0, "precision": "fp32"})
    model = build(0)
    assert [tuple(head(torch.zeros(1, model.tap(k).tokens, model.tap(k).dim)).shape[1:]) for k, head in
            enumerate(model.heads)] == [(1, 16, 8), (1, 8, 4)]  # fmt: skip
    found = result(folders, splits)
    assert [row["after"] for row in found["exits"]] == [*EXITS, "final"]
    assert found["exits"][0]["macs"] < found["exits"][-1]["macs"]
    for row in found["exits"]:
        assert row["interval"][0] <= row["mae"]["mean"] <= row["interval"][1]
        assert row["mae"]["mean"] <= row["rmse"]["mean"]
        levels = [row["mae"]["mean"], *(row["game"][str(level)]["mean"] for level in plan.LEVELS)]
        assert levels == sorted(levels), "the finer the parts, the more is wrong"
    said = found["trivial"]["says"]
    assert found["trivial"]["mae"] == pytest.approx(float(np.abs(splits.test.targets - said).mean()))
    assert [policy["rule"] for policy in found["policies"]] == [rule for rule in plan.RULES for _ in plan.MORE]
    assert len(found["promise"]) == 2
    json.dumps(found)
    draw({"camera 1": found}, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_road_from_frames_in_crops_to_their_sums(frames, tmp_path, monkeypatch):
    save_file(
        timm.create_model(crops.BACKBONE, img_size=32, num_classes=1).state_dict(), tmp_path / "weights.safetensors"
    )
    monkeypatch.setattr(crops, "SIDE", 32)
    for module in (crops, crops_result):
        monkeypatch.setattr(module, "SEVEN", ("mlp", "cnn-add"))
    monkeypatch.setattr(crops, "STEPS", 20)
    monkeypatch.setattr(crops, "TRAINING", {**crops.TRAINING, "epochs": 1, "warmup_epochs": 0.0})
    whole = cut(SPLITS[0], frames)
    splits = splits_in_crops(whole, crops.GRID)
    runs = [crops.Work(splits, tmp_path / f"0-{seed}", seed, tmp_path / "weights.safetensors") for seed in range(2)]
    for run in runs:
        run.train({"device": "cpu", "workers": 0, "precision": "fp32"})
    best = crops_result.best_of([runs])
    said = {
        kind: [np.mean(crops_result.errors(run.calibrating(kind))[:-1]) for run in runs] for kind in ("mlp", "cnn-add")
    }
    assert best == min(said, key=lambda kind: np.mean(said[kind]))
    found = crops_result.result(runs, best)
    goals = [policy.get("more") or policy["target_speedup"] for policy in found["policies"]]
    assert goals == [*plan.MORE, 1.5] * len(plan.RULES)
    assert found["frames"] == {name: len(part) for name, part in whole.parts.items()}
    trivial = np.abs(whole.test.targets - whole.train.targets.mean()).mean()
    assert found["trivial"]["mae"] == pytest.approx(float(trivial), rel=1e-4)
    said = crops.table(tmp_path / "0-1" / "cnn-add", "test").of(1)[:, 0].reshape(-1, 6).sum(1)
    own = float((said - torch.from_numpy(whole.test.targets)).abs().mean())
    assert found["exits"]["cnn-add"][1]["mae"]["each"][1] == pytest.approx(own, rel=1e-4)
    assert [row["after"] for row in found["exits"]["mlp"]] == [3, 6, 9]
    cost = [row["macs_of_a_frame"] for row in found["exits"]["mlp"]]
    assert cost == sorted(cost)
    before = (tmp_path / "0-0" / "model.safetensors").stat().st_mtime_ns
    runs[0].train({})
    assert (tmp_path / "0-0" / "model.safetensors").stat().st_mtime_ns == before, "what is finished is left alone"
    json.dumps(found)
    crops_picture.draw({"camera 1": found, "camera 2": found}, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
