"""One network in every form, runtime and precision: the road from weights to a picture."""

import pytest
import timm
import torch
from benchmarks.photographs import files as module
from benchmarks.photographs import plan
from benchmarks.photographs.files import Files
from benchmarks.photographs.kept import kept
from benchmarks.photographs.picture import draw
from benchmarks.photographs.rows import DROPS, rows
from benchmarks.tails.plan import FIELDS, Field
from benchmarks.tails.training import build, splits_of, trained
from helpers import noise_file
from safetensors.torch import load_file, save_file

from offramp.policies.threshold import Threshold


@pytest.mark.slowest
def test_the_road_from_weights_to_a_picture(tmp_path):
    methods = ("48 px", "6 of 12 blocks", "tails and exits")
    data = noise_file(tmp_path / "d.npz", 48, 96, 64, 100)
    place = Field("noise", 48, (1, 3), (32, 48), 64, 80, {"crop_pct": 1.0})
    for run in plan.to_train(place, methods):
        folder = tmp_path / "work" / f"{run.name}-0"
        folder.mkdir(parents=True)
        save_file(build(run.seeded(0), place, None, 10).state_dict(), folder / "model.safetensors")
    (tmp_path / "files").mkdir()
    files = Files(place, tmp_path / "work", splits_of(place, data), tmp_path / "files")
    found = rows(files, tmp_path / "kept", ["openvino:int8", "onnxruntime:fp32"], methods, 1, 1, 64)
    names = [(row["runtime"], row["precision"], row["method"]) for row in found["rows"]]
    timed = [*methods[:2], *(m for m in methods[2:] for _ in DROPS)]
    assert names == [(*place, m) for place in (("openvino", "int8"), ("onnxruntime", "fp32")) for m in timed]
    early = [row for row in found["rows"] if "max_drop" in row]
    assert [row["max_drop"] for row in early] == list(DROPS) * 2
    assert all(0 <= row["last_exit"]["accuracy"] <= 1 for row in early)
    assert all(set(row["batches"]) == {"1", "64"} for row in found["rows"])
    assert all(0 <= batch["accuracy"] <= 1 for row in found["rows"] for batch in row["batches"].values())
    again = rows(files, tmp_path / "kept", ["openvino:int8", "onnxruntime:fp32"], methods, 1, 1, 64)
    assert again == found, "rows that are there are not timed again"
    draw(found["rows"], "noise", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_rows_are_made_anew_under_other_conditions_and_after_a_failure(tmp_path):
    file, made = tmp_path / "a.json", []

    def make():
        made.append(len(made))
        return [{"batches": {1: made[-1]}}]

    def broken():
        raise RuntimeError

    assert kept(file, {"threads": 1}, make) == kept(file, {"threads": 1}, broken) == [{"batches": {"1": 0}}]
    with pytest.raises(RuntimeError):
        kept(file, {"threads": 2}, broken)
    assert kept(file, {"threads": 1}, broken) == [{"batches": {"1": 0}}], "what failed leaves what was there"
    assert kept(file, {"threads": 2}, make) == [{"batches": {"1": 1}}]


def test_files_of_two_methods_of_one_run_are_two(tmp_path, monkeypatch):
    """Tails with and without their exits have one run's weights, and may have policies with as many exits: none."""
    place = Field("noise", 48, (1, 3), (32, 48), 64, 80, {"crop_pct": 1.0})
    files, written = Files(place, tmp_path, None, tmp_path), []
    monkeypatch.setattr(Files, "model", lambda self, run: run)
    monkeypatch.setattr(module, "export_onnx", lambda model, path, policy, **about: written.append(path))
    for name in (plan.BOTH, plan.TAILS):
        files.fixed(plan.leaving(place)[name], False, Threshold((None, None)))
    assert len(set(written)) == 2


def test_every_run_comes_after_what_it_starts_from():
    for place in FIELDS.values():
        methods = {**plan.alone(place), **plan.leaving(place)}
        for chosen in (methods, *((name,) for name in methods)):
            known: set[str] = set()
            for run in plan.to_train(place, chosen):
                assert {run.base, run.start} - {None} <= known, run.name
                assert run.name not in known
                known.add(run.name)
            assert {methods[name].name for name in chosen} <= known


def test_tails_are_the_ones_with_exits_without_their_heads(tmp_path):
    place = Field("noise", 48, (1, 3), (32, 48), 64, 80, {"crop_pct": 1.0})
    both, tails = (plan.leaving(place)[name].seeded(0) for name in (plan.BOTH, plan.TAILS))
    assert plan.to_train(place, [plan.TAILS]) == plan.to_train(place, [plan.BOTH])
    (tmp_path / both.name).mkdir()
    whole = build(both, place, None, 10)
    save_file(whole.state_dict(), tmp_path / both.name / "model.safetensors")
    found = trained(tails, place, tmp_path, 10)
    assert not found.heads
    with torch.inference_mode():
        images = torch.randn(2, 3, 48, 48)
        *_, last = whole.eval()(images)
        assert torch.equal(found(images)[-1], last)


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
