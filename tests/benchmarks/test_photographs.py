"""One network in every form, runtime and precision: the road from weights to a picture."""

import json

import pytest
import timm
import torch
from benchmarks.photographs import plan
from benchmarks.photographs.files import Files
from benchmarks.photographs.picture import draw
from benchmarks.photographs.rows import rows
from benchmarks.tails.plan import FIELDS, Field
from benchmarks.tails.training import build, splits_of
from helpers import noise_file
from safetensors.torch import load_file, save_file


@pytest.mark.slowest
def test_the_road_from_weights_to_a_picture(tmp_path, monkeypatch):
    known = {"alone": ("48 px", "32 px", "6 of 12 blocks"), "leaving": ("tails",)}
    data = noise_file(tmp_path / "d.npz", 48, 96, 64, 100)
    place = Field("noise", 48, (1, 3), (32, 48), 64, 80, {"crop_pct": 1.0})
    methods = (*known["alone"], *known["leaving"])
    used = [getattr(plan, name)(place)[method] for name, methods in known.items() for method in methods]
    for run in used:
        folder = tmp_path / "work" / f"{run.name}-0"
        folder.mkdir(parents=True)
        save_file(build(run.seeded(0), place, None, 10).state_dict(), folder / "model.safetensors")
    (tmp_path / "files").mkdir()
    files = Files(place, tmp_path / "work", splits_of(place, data), tmp_path / "files")
    found = rows(files, ["openvino:int8", "onnxruntime:fp32"], methods, 1, 1, 64)
    names = [(row["runtime"], row["precision"], row["method"]) for row in found["rows"]]
    assert names == [(*place, m) for place in (("openvino", "int8"), ("onnxruntime", "fp32")) for m in methods]
    assert all(set(row["batches"]) == {1, 64} for row in found["rows"])
    assert all(0 <= batch["accuracy"] <= 1 for row in found["rows"] for batch in row["batches"].values())
    json.dumps(found)
    draw(found["rows"], "noise", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_every_run_comes_after_what_it_starts_from():
    for place in FIELDS.values():
        known = {f"static{place.sides[-1]}"}
        for run in (*plan.alone(place).values(), *plan.leaving(place).values()):
            assert {run.base, run.start} - {None} <= known, run.name
            known.add(run.name)


def test_weights_of_the_cnn_are_renamed_in_order(tmp_path, monkeypatch):
    """The package is not there in tests: in its place a file with the names that it has."""
    own = timm.create_model(plan.LITE0).state_dict()
    (tmp_path / "models").mkdir()
    torch.save({f"_{i}": value for i, value in enumerate(own.values())}, tmp_path / "models" / "w.pth")
    monkeypatch.setattr(plan, "files", lambda package: tmp_path)
    renamed = load_file(plan.lite0_weights(tmp_path / "work"))
    assert renamed.keys() == own.keys()
    assert all(torch.equal(renamed[name], own[name]) for name in own)
    torch.save({f"_{i}": value for i, value in enumerate(reversed(own.values()))}, tmp_path / "models" / "w.pth")
    with pytest.raises(ValueError, match="is no tf_efficientnet_lite0"):
        plan.lite0_weights(tmp_path / "other")
