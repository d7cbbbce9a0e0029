"""Servers under load, a model in two places, the scheduler without a clock: the roads, with random weights."""

import json
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import edge, simulated
from benchmarks.serving import __main__ as serving
from helpers import noise_file, tiny_vit

import offramp
from offramp import Exit
from offramp.cost import profile
from offramp.data import loader, open_splits
from offramp.policies.threshold import Threshold


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with a table, costs and a policy, and its data."""
    folder = tmp_path_factory.mktemp("served")
    data = noise_file(folder / "d.npz", 32, 20, 60, 60)
    splits = open_splits(data)
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(num_classes=10), [Exit(1), Exit(2)], classes=splits.classes).eval()
    table = offramp.tabulate(model, loader(splits.validation, model.input, 32))
    policy = Threshold((float(table.outputs[0].softmax(1).amax(1).median()), 0.9))
    offramp.save(model, folder / "m", policy, table, profile(model, repeats=0), splits.record)
    return str(folder / "m"), data


@pytest.mark.slowest
def test_the_road_of_serving(saved, tmp_path, monkeypatch):
    model, data = saved
    monkeypatch.setattr("benchmarks.RESULTS", tmp_path)
    monkeypatch.setattr(serving, "RESULTS", tmp_path)
    words = ["--model", model, "--data", data, "--arrivals", "poisson", "bursts", "--loads", "0.05", "--seconds", "1"]
    monkeypatch.setattr(sys, "argv", ["serving", *words, "--images", "30", "--deadline-ms", "2000"])
    monkeypatch.setenv("PYTHONPATH", str(Path(serving.__file__).parents[2]))
    serving.main()
    found = json.loads((tmp_path / "serving.json").read_text())
    names = ["fastapi", "litserve", "offramp", "null"]
    assert [(row["server"], row["arrivals"]) for row in found["rows"]] == [
        (name, kind) for kind in ("poisson", "bursts") for name in names
    ]
    for row in found["rows"]:
        assert row["in_time"] + row["late"] + row["refused"] + row["failed"] == pytest.approx(1)
        assert row["in_time"] > 0.5, row
        assert ("accuracy" in row) == (row["server"] != "null")
    static = [row["accuracy"] for row in found["rows"] if row["server"] in ("fastapi", "litserve")]
    assert max(static) == min(static), "the same network on the same images"
    assert found["bare"]["static_per_second"] > 0
    assert (tmp_path / "serving.png").stat().st_size > 1000


@pytest.mark.slowest
def test_the_road_of_simulated(saved, tmp_path, monkeypatch):
    model, data = saved
    monkeypatch.setattr("benchmarks.RESULTS", tmp_path)
    monkeypatch.setattr(simulated, "_WARM_UP", 20)
    words = ["--model", model, "--data", data, "--requests", "50", "--loads", "0.1", "--million", "1000"]
    monkeypatch.setattr(sys, "argv", ["simulated", *words, "--deadline-ms", "2000"])
    simulated.main()
    found = json.loads((tmp_path / "simulated.json").read_text())
    assert [row["arrivals"] for row in found["rows"]] == ["poisson", "fixed", "bursts"]
    for row in found["rows"]:
        for way in ("live", "simulated"):
            assert row[way]["in_time"] > 0.9
            assert row[way]["p50_ms"] > 0
        assert row["live"]["exit"] == pytest.approx(row["simulated"]["exit"], abs=0.2)
    assert found["many"]["requests"] == 1000


@pytest.mark.slowest
def test_the_road_of_edge(saved, tmp_path, monkeypatch):
    model, data = saved
    monkeypatch.setattr("benchmarks.RESULTS", tmp_path)
    words = ["--model", model, "--data", data, "--images", "12", "--megabits", "5", "100", "--slower", "1.5"]
    monkeypatch.setattr(sys, "argv", ["edge", *words])
    edge.main()
    rows = json.loads((tmp_path / "edge.json").read_text())["rows"]
    assert [(row["megabits"], row["split"]) for row in rows] == [(b, k) for b in (5, 100) for k in (-1, 0, 1, 2)]
    for row in rows:
        assert row["where"]["cut off"] == 0
        assert (row["sent_bytes"] == 0) == (row["where"]["server"] == 0)
        assert row["where"]["here"] == {-1: 0, 2: 1}.get(row["split"], row["where"]["here"])
    assert sum(row["auto"] for row in rows) == 2
    assert rows[0]["accuracy"] == rows[3]["accuracy"], "all there and all here are the same model"
