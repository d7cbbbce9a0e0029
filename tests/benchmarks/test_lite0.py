"""A CNN beside the ViT: both become files, are judged on the same images and timed in turn."""

from dataclasses import replace

import pytest
from benchmarks.lite0 import rows
from benchmarks.photographs.plan import LITE0
from benchmarks.pretrained.plan import base
from benchmarks.tails.plan import BACKBONE, Field
from benchmarks.tails.training import build, splits_of
from helpers import noise_file


@pytest.mark.slowest
def test_both_are_files_judged_and_timed(tmp_path):
    place = Field("noise", 48, (1, 3), (48,), 64, 80, {"crop_pct": 1.0})
    splits, vit = splits_of(place, noise_file(tmp_path / "d.npz", 48, 64, 48, 80)), base(place).seeded(0)
    runs = {BACKBONE: vit, LITE0: replace(vit, network=LITE0)}
    models = {name: build(run, place, None, 10).eval() for name, run in runs.items()}
    found = rows(models, splits, ["openvino:int8"], 1, 1, 64)
    assert [(row["runtime"], row["precision"]) for row in found] == [("openvino", "int8")]
    for row in found:
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
        assert set(row["batches"]) == {1, 64}
        assert all(batch["static_ms"] > 0 and batch["dynamic_ms"] > 0 for batch in row["batches"].values())
