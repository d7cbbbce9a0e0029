"""The experiment of 2106.15183: its arithmetic, and its road on a handful of images."""

import numpy as np
import pytest
import timm
from benchmarks.multi_exit.picture import draw
from benchmarks.multi_exit.plan import FIELDS, QUARTERS, SEVEN, Field, Run, runs
from benchmarks.multi_exit.result import frontier, order, result
from benchmarks.multi_exit.training import Cache, build, fine_tune, splits_of
from safetensors.torch import save_file

import offramp

AUTHORS = FIELDS["cifar10"].authors


def right_with(accuracies, images=2000):
    """For each head images of which that share is right."""
    return {
        head: {place: (np.arange(images) < share * images).astype(float) for place in QUARTERS}
        for head, share in accuracies.items()
    }


def test_the_order_of_the_heads_against_the_authors():
    same = {head: values[0] / 100 for head, values in AUTHORS.items()}
    found = order(right_with(same), AUTHORS, 3)
    assert found["seven"]["rho"] == pytest.approx(1.0)
    assert found["without_mlp"]["rho"] == pytest.approx(1.0)
    assert found["ranks"] == found["authors_ranks"]
    assert found["authors_ranks"]["resmlp"] == 1
    assert found["authors_ranks"]["mlp"] == 7
    other = order(right_with({head: 1 - share for head, share in same.items()}), AUTHORS, 3)
    assert other["seven"]["rho"] == pytest.approx(-1.0)
    low, high = found["seven"]["interval"]
    assert low <= high <= 1
    assert found["bar"] == 0.714
    assert order(right_with(same), AUTHORS, 9)["bar"] is None


def test_the_authors_ranks_are_those_of_the_reference():
    different = {head: 0.3 + 0.05 * i for i, head in enumerate(SEVEN)}
    ranks = {place: order(right_with(different), AUTHORS, place)["authors_ranks"] for place in QUARTERS}
    assert [ranks[3][head] for head in SEVEN] == [7, 6, 4, 3, 2, 1, 5]
    assert [ranks[6][head] for head in SEVEN] == [7, 4, 5, 3, 1, 2, 6]
    assert [ranks[9][head] for head in SEVEN] == [7, 3, 4, 5, 1, 2, 6]


def test_the_plan():
    plan = runs(3)
    assert len({run.name for run in plan}) == len(plan)
    first = [run for run in plan if run.seed == 0 and run.form != "ports"]
    assert all(run.places == tuple(range(1, 12)) for run in first)
    assert {run.head for run in first} == set(offramp.registry.HEADS) - {"lens", "density"}
    assert all(run.places == QUARTERS for run in plan if run not in first)


def test_the_frontier_keeps_what_nothing_beats():
    exits = [{"after": k, "macs": m, "accuracy": a} for k, m, a in ((1, 5, 0.5), (2, 9, 0.4), (3, 12, 0.7))]
    rows = [
        {"head": "a", "form": "own", "exits": exits},
        {"head": "b", "form": "own", "exits": [{**exits[2], "macs": 6}]},
    ]
    assert [(p["head"], p["after"]) for p in frontier(rows)] == [("a", 1), ("b", 3)]


@pytest.mark.slow
@pytest.mark.slowest
def test_the_road_from_images_to_a_picture(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (200, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(200) % 10
    train, test = {"x_train": pixels[:140], "y_train": labels[:140]}, {"x_test": pixels[140:], "y_test": labels[140:]}
    np.savez(tmp_path / "d.npz", classes=np.array(list("abcdefghij")), **train, **test)
    inner = timm.create_model("vit_tiny_patch16_224", img_size=32)
    save_file(inner.state_dict(), tmp_path / "w.safetensors")
    place = Field("noise", 32, 64, 40, 50, AUTHORS)
    splits = splits_of(place, str(tmp_path / "d.npz"))
    assert [len(splits.of(name)) for name in ("train", "validation", "test")] == [64, 40, 50]
    weights = fine_tune(place, splits, tmp_path / "w.safetensors", tmp_path)
    cache = Cache(place, splits, weights, tmp_path)
    assert cache.check(64)
    plan = [Run(head, form, QUARTERS, 0) for head in SEVEN for form in ("authors", "ports")]
    for run in [*plan, Run("linear", "own", QUARTERS, 0)]:
        cache.train(run)
    model = build(plan[0], place, weights, 10)
    assert [e.head for e in model.exits] == ["mlp"] * 3
    found = result(cache, plan)
    finals = [cache.table(run, "test").of(-1) for run in plan]
    assert all((final == finals[0]).all() for final in finals), "the backbone is the same for all"
    row = next(row for row in found["heads"] if (row["head"], row["form"]) == ("vit", "authors"))
    assert [e["after"] for e in row["exits"]] == list(QUARTERS)
    assert row["exits"][0]["macs"] < row["exits"][1]["macs"]
    times = cache.times(1, 64)
    assert all(t["seconds"]["features"] > 0 for t in times)
    found["heads"] += [{"head": h, "form": "own", "exits": row["exits"]} for h in ("linear", "lph", "gah", "sl-vit")]
    draw(found, "noise", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
