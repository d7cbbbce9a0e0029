"""The comparison of tails: its arithmetic, and that its plan can be carried out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from benchmarks._parts import part_of
from benchmarks.tails import timing
from benchmarks.tails.files import widened
from benchmarks.tails.merging import Merging, macs, merge
from benchmarks.tails.methods import METHODS, ROUTERS, Readings
from benchmarks.tails.picture import draw
from benchmarks.tails.plan import FIELDS, OWN_HEADS, Field, large_routers, own_heads, runs
from benchmarks.tails.readings import Tables, at_random, oracle
from benchmarks.tails.result import heads_compared, larger_routers, paired, result, row
from benchmarks.tails.timing import TIMED, merged, times
from benchmarks.tails.training import splits_of, train
from helpers import images, noise_file, tiny_vit
from safetensors.torch import save_file

import offramp
from offramp import Exit, Routed
from offramp.policies import replay, spent
from offramp.policies.threshold import Threshold
from offramp.registry import OBJECTIVES

pytestmark = pytest.mark.slow


def model_of(**options):
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4], **options).eval()
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters()]:
            p.normal_(std=0.3)
    return model


def tables_of(model, samples=600):
    x = images(samples)
    targets = torch.randint(5, (samples,), generator=torch.Generator().manual_seed(1))
    table = offramp.tabulate(model, [(x, targets)])
    return Tables(table.take(slice(0, 300)), table.take(slice(300, None)), offramp.profile(model, repeats=0))


@pytest.mark.parametrize("keep", [(1, 3), (0, 1, 3), (2, 3), (3,), (0, 1, 2, 3)])
@pytest.mark.parametrize("link", ["none", "recycle"])
def test_a_part_costs_and_answers_what_the_whole_does_with_the_rest_off(keep, link):
    if link != "none" and 1 not in keep:
        pytest.skip("a linked path is always computed")
    model = model_of(link=link, router="cnn")
    whole = tables_of(model)
    table, costs = part_of(whole.test, whole.costs, keep)
    policy = Threshold((0.4,) * (len(keep) - 1))
    wide = widened(policy, keep, 3)
    assert wide.heads == keep[:-1]
    few, all_ = replay(policy, table), replay(wide, whole.test)
    assert torch.equal(torch.tensor(keep)[few.exit], all_.exit)
    assert torch.equal(few.output, all_.output)
    assert torch.equal(spent(policy, few, costs.in_chain()), spent(wide, all_, whole.costs.in_chain()))


def test_a_path_stays_only_with_its_classifier():
    whole = tables_of(model_of())
    with pytest.raises(ValueError, match="its own classifier"):
        part_of(whole.test, whole.costs, (0, 3))


def test_the_router_alone_decides():
    model = model_of(router="cnn")
    whole = tables_of(model)
    parts = [part_of(t, whole.costs, (1, 3)) for t in (whole.validation, whole.test)]
    tables = Tables(parts[0][0], parts[1][0], parts[0][1])
    cheap, dear = tables.alone(0), tables.alone(1)
    assert tables.routed(100.0) is None
    for budget in (1.01, 1.3):
        reading = tables.routed(budget)
        assert isinstance(reading.policy, Routed)
        assert reading.shares == reading.entries  # who enters on a path is answered at its end
        router = whole.costs.macs.router
        expected = reading.entries[0] * cheap.macs[0] + reading.entries[1] * dear.macs[0] + router
        assert float(reading.macs.mean()) == pytest.approx(float(expected), rel=1e-6)
    assert at_random(tables, (1.0, 0.0)) == cheap.accuracy
    best = oracle(tables)
    assert best.accuracy >= max(cheap.accuracy, dear.accuracy)
    assert float(best.macs.min()) == float(cheap.macs[0])


def test_over_seeds():
    whole = tables_of(model_of())
    a, b = whole.alone(0), whole.alone(3)
    both = row([a, b])
    assert both["accuracy"]["mean"] == pytest.approx((a.accuracy + b.accuracy) / 2)
    difference = paired([a], [b])
    assert difference["change"] == pytest.approx(a.accuracy - b.accuracy)
    low, high = difference["interval"]
    assert low <= difference["change"] <= high


@pytest.mark.parametrize("place", FIELDS.values(), ids=FIELDS)
def test_every_run_starts_from_one_before_it(place):
    plan = [run.seeded(1) for run in runs(place)]
    names = [run.name for run in plan]
    assert len(set(names)) == len(names)
    for number, run in enumerate(plan):
        assert {run.base, run.start} <= {None, *names[:number]}
        assert run.base is None or run.start is None
        assert run.settings["seed"] == 1
        OBJECTIVES.resolve(run.objective)(**run.options)
    assert {method.run for method in METHODS.values()} <= {run.name for run in runs(place)}
    assert {*ROUTERS.values()} <= {run.name for run in runs(place)}
    assert {*TIMED} <= {*METHODS}
    assert not own_heads(place).shared_heads


def test_merging_keeps_what_the_tokens_add_up_to():
    g = torch.Generator().manual_seed(0)
    x, size, keys = torch.randn(2, 9, 4, generator=g), torch.ones(2, 9, 1), torch.randn(2, 9, 3, generator=g)
    for r in (1, 4):
        left, counts = merge(x, size, keys, r)
        assert left.shape == (2, 9 - r, 4)
        assert torch.allclose((left * counts).sum(1), x.sum(1), atol=1e-5)
        assert torch.equal(left[:, 0], x[:, 0])  # the class token is where it was
        assert float(counts.sum()) == 18
    alike = torch.zeros(1, 5, 3)
    alike[0, 2], alike[0, 3] = torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 0, 0])
    _, counts = merge(torch.randn(1, 5, 4), torch.ones(1, 5, 1), alike, 1)
    assert sorted(counts.flatten().tolist()) == [1, 1, 1, 2]


def test_nothing_merged_is_the_network_itself():
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        expected, found, fewer = network(x), Merging(network, 0)(x), Merging(network, 2)(x)
    assert torch.allclose(expected, found, atol=1e-5)
    assert fewer.shape == expected.shape
    assert macs(Merging(network, 2), x) < macs(Merging(network, 0), x)
    assert np.isfinite(fewer.numpy()).all()


@pytest.mark.slowest
def test_the_road_from_images_to_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "TIMED", ("exits only", "routed: exit, labels"))
    data = noise_file(tmp_path / "d.npz", 48, 96, 64, 100)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "w.safetensors")
    place = Field("noise", 48, (1, 2, 3), (32, 40, 48), 64, 80, {"crop_pct": 1.0})
    splits = splits_of(place, data)
    assert {name: len(part) for name, part in splits.parts.items()} == {"train": 64, "validation": 64, "test": 80}
    short = {"epochs": 1, "batch_size": 32, "warmup_epochs": 0.0}
    plan = [run.seeded(seed) for seed in range(2) for run in runs(place)]
    for run in [*plan, *(run.seeded(0) for run in (own_heads(place), *large_routers(place)))]:
        short_run = replace(run, settings={**run.settings, **short})
        train(short_run, place, splits, tmp_path / "w.safetensors", tmp_path / "work")
    readings = Readings(place, tmp_path / "work", 2, 10)
    found = result(readings)
    found["heads"] = heads_compared(readings.of(OWN_HEADS, 0), readings.of("tails-exits", 0))
    found["larger_routers"] = larger_routers(readings)
    found["merged"] = merged(readings, splits, tmp_path / "work")
    found["times"] = times(readings, splits, tmp_path / "work", found["merged"], 1, 1, 4)
    assert {row["runtime"] for row in found["times"]} == {"onnxruntime", "openvino"}
    assert (
        found["tails_alone"]["9 tokens"]["macs_speedup"]["mean"]
        < found["tails_alone"]["1 tokens"]["macs_speedup"]["mean"]
    )
    json.dumps(found)
    draw(found, "noise", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
