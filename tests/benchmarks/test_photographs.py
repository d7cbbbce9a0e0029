"""One network in every form, runtime and precision: the road from weights to a picture."""

import json

import numpy as np
import pytest
from benchmarks.photographs import rows as rows_module
from benchmarks.photographs.files import Files
from benchmarks.photographs.picture import draw
from benchmarks.photographs.rows import rows
from benchmarks.tails.plan import Field, runs
from benchmarks.tails.training import build, splits_of
from safetensors.torch import save_file


@pytest.mark.slowest
def test_the_road_from_weights_to_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "METHODS", {"tails": "tails"})
    monkeypatch.setattr(rows_module, "_BATCHES", (1, 64))
    rng = np.random.default_rng(0)
    labels = np.arange(260) % 10
    pixels = (rng.random((260, 48, 48, 3)) * 200 + 5 * labels[:, None, None, None]).astype(np.uint8)
    parts = {"train": slice(0, 96), "validation": slice(96, 160), "test": slice(160, 260)}
    arrays = {f"{kind}_{name}": a[at] for name, at in parts.items() for kind, a in (("x", pixels), ("y", labels))}
    np.savez(tmp_path / "d.npz", classes=np.array(list("abcdefghij")), **arrays)
    place = Field("noise", 48, (1, 3), (32, 48), 64, 80, {"crop_pct": 1.0})
    for run in runs(place):
        if run.name in ("tails", "static32", "static48"):
            folder = tmp_path / "work" / f"{run.name}-0"
            folder.mkdir(parents=True)
            save_file(build(run.seeded(0), place, None, 10).state_dict(), folder / "model.safetensors")
    (tmp_path / "files").mkdir()
    files = Files(place, tmp_path / "work", splits_of(place, str(tmp_path / "d.npz")), tmp_path / "files")
    found = rows(files, ["openvino:int8", "onnxruntime:fp32"], 1, 1, 64)
    names = [(row["runtime"], row["precision"], row["method"]) for row in found["rows"]]
    methods = ("48 px", "32 px", "tails")
    assert names == [(*place, m) for place in (("openvino", "int8"), ("onnxruntime", "fp32")) for m in methods]
    assert all(set(row["batches"]) == {1, 64} for row in found["rows"])
    assert all(0 <= row["accuracy"] <= 1 for row in found["rows"])
    json.dumps(found)
    draw(found["rows"], "noise", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
