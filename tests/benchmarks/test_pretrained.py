"""Exits for a fine-tuned network: its plan can be carried out, from images to a picture."""

from dataclasses import replace

import pytest
import timm
from benchmarks._runs import trained_in
from benchmarks.pretrained.picture import draw
from benchmarks.pretrained.plan import WAYS, base, ways
from benchmarks.pretrained.result import result
from benchmarks.tails.plan import FIELDS, Field
from benchmarks.tails.training import splits_of, train
from helpers import noise_file
from safetensors.torch import save_file


def test_all_ways_see_the_data_equally_often():
    assert len({settings["epochs"] for _, settings, _ in WAYS.values()}) == 1
    for place in FIELDS.values():
        plan = ways(place)
        assert len({run.name for run in plan.values()}) == len(plan)
        assert {run.base for run in plan.values()} == {base(place).name}


@pytest.mark.slowest
def test_the_road_from_images_to_a_picture(tmp_path):
    data = noise_file(tmp_path / "d.npz", 48, 64, 48, 48)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "w.safetensors")
    place = Field("noise", 48, (1, 3), (48,), 64, None, {"crop_pct": 1.0})
    splits = splits_of(place, data)
    short = {"epochs": 2, "batch_size": 32, "warmup_epochs": 0.0}
    for run in (base(place), *ways(place).values()):
        one = replace(run.seeded(0), settings={**run.settings, **short, "seed": 0})
        train(one, place, splits, tmp_path / "w.safetensors", tmp_path / "work", precision="bf16")
        assert trained_in(tmp_path / "work" / one.name) == {"device": "cpu", "precision": "bf16"}
    rows = result(place, tmp_path / "work", 1, 10)
    assert set(rows) == {"fine-tuned", *WAYS}
    assert all(len(rows[way]["exits"]) == 4 for way in WAYS)
    for way in ("frozen", "head-distillation"):
        assert rows[way]["final_against_fine_tuned"] == {"change": 0.0, "interval": [0.0, 0.0]}
    draw(rows, "noise", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
