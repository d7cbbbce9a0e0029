"""One network in every form, runtime and precision: the road from weights to a picture."""

import json

import pytest
from benchmarks.photographs import rows as rows_module
from benchmarks.photographs.files import Files
from benchmarks.photographs.picture import draw
from benchmarks.photographs.rows import rows
from benchmarks.tails.plan import Field, runs
from benchmarks.tails.training import build, splits_of
from helpers import noise_file
from safetensors.torch import save_file


@pytest.mark.slowest
def test_the_road_from_weights_to_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "METHODS", {"tails": "tails"})
    monkeypatch.setattr(rows_module, "_BATCHES", (1, 64))
    data = noise_file(tmp_path / "d.npz", 48, 96, 64, 100)
    place = Field("noise", 48, (1, 3), (32, 48), 64, 80, {"crop_pct": 1.0})
    for run in runs(place):
        if run.name in ("tails", "static32", "static48"):
            folder = tmp_path / "work" / f"{run.name}-0"
            folder.mkdir(parents=True)
            save_file(build(run.seeded(0), place, None, 10).state_dict(), folder / "model.safetensors")
    (tmp_path / "files").mkdir()
    files = Files(place, tmp_path / "work", splits_of(place, data), tmp_path / "files")
    found = rows(files, ["openvino:int8", "onnxruntime:fp32"], 1, 1, 64)
    names = [(row["runtime"], row["precision"], row["method"]) for row in found["rows"]]
    methods = ("48 px", "32 px", "tails")
    assert names == [(*place, m) for place in (("openvino", "int8"), ("onnxruntime", "fp32")) for m in methods]
    assert all(set(row["batches"]) == {1, 64} for row in found["rows"])
    assert all(0 <= row["accuracy"] <= 1 for row in found["rows"])
    json.dumps(found)
    draw(found["rows"], "noise", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
