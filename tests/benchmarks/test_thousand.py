"""Exits for 1,000 classes: the road from a pretrained network to what its exits are worth."""

import json

import pytest
from benchmarks import thousand
from helpers import noise_file


@pytest.mark.slowest
def test_the_road(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.RESULTS", tmp_path)
    monkeypatch.setattr(thousand, "SETTINGS", {**thousand.SETTINGS, "epochs": 1})
    data = noise_file(tmp_path / "d.npz", 32, 70, 10, 140)
    other = noise_file(tmp_path / "other.npz", 16, 40, 10, 10)
    thousand.run(tmp_path / "d.npz", [data, f"{other}:30"], None, tmp_path / "work", 2, img_size=32, depth=11)
    found = json.loads((tmp_path / "thousand.json").read_text())
    assert found["images"] == {"unlabelled": 100, "calibrating": 70, "testing": 70}
    assert found["final_exit_unchanged"]
    assert [row["way"] for row in found["rows"]] == [
        f"{way}, {head}" for head in thousand.HEADS for way in ("copycat", "head-distillation")
    ]
    for row in found["rows"]:
        assert [e["after"] for e in row["exits"]] == [6, 8, 10, 11]
        assert row["exits"][-1]["agrees"]["mean"] == 1
        for goal in thousand.GOALS:
            assert len(row[goal]) == 2
            assert all(policy["macs_speedup"] > 0 for policy in row[goal])
    assert not list((tmp_path / "work").glob("copycat*")), "only features are kept"
