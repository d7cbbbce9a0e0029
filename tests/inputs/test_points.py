"""Images with points: what training shows of them, and the map that says where they are."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from offramp import DataError, UsageError
from offramp.data import Samples, loader
from offramp.data.prepared import Prepared, collate
from offramp.inputs import Labelled, PointsInput

READS = PointsInput((3, 64, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
BLACK = Image.new("RGB", (90, 180))


def sample(points, image=BLACK, weights=None):
    points = np.array(points, np.float32).reshape(-1, 2)
    return READS.marked(image, points, np.ones(len(points)) if weights is None else np.array(weights))


def lit(points):
    """White squares on black where the points are."""
    pixels = np.zeros((180, 90, 3), np.uint8)
    for x, y in points:
        pixels[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = 255
    return Image.fromarray(pixels)


def test_a_map_has_a_point_where_it_is_and_its_sum_is_their_number():
    found = READS.map_of(torch.tensor([[11.5, 19.5], [11.5, 19.5], [0.0, 0.0], [31.0, 63.0]]), torch.ones(4))
    assert found.shape == (1, 8, 4)
    assert float(found.sum()) == pytest.approx(4, abs=1e-5), "what falls off an edge comes back"
    assert found[0, 2, 1] == found.max(), "x counts columns of 8 pixels, y rows"
    assert found[0, 0, 0] > 0.5
    assert found[0, 7, 3] > 0.5
    weighted = READS.map_of(torch.tensor([[11.5, 19.5], [0.0, 0.0]]), torch.tensor([0.25, 2.0]))
    assert float(weighted.sum()) == pytest.approx(2.25)
    assert READS.map_of(torch.zeros(0, 2), torch.zeros(0)).tolist() == [[[0.0] * 4] * 8]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("changed", [{}, {"scale": [0.3, 0.3]}, {"hflip": 1}, {"scale": (1, 1), "hflip": 0}])
def test_points_go_where_the_picture_goes(seed, changed):
    training = pickle.loads(pickle.dumps(READS.transform(changed)))
    rows, columns = torch.arange(64) + 0.5, torch.arange(32) + 0.5
    shown = 0
    for point in [(20, 30), (70, 30), (45, 90), (10, 160), (80, 120)]:
        torch.manual_seed(seed)
        image, target = training(sample([point], lit([point])))
        assert image.shape == READS.input_size
        light = image[0].clamp(min=0)
        assert float(target.sum()) == pytest.approx(round(float(target.sum())), abs=1e-4)
        if target.sum() < 0.5:
            assert light.sum() < 20, "its light is there without it"
            continue
        shown += 1
        assert light.sum() > 2, "it is there without its light"
        y, x = float((light.sum(1) * rows).sum() / light.sum()), float((light.sum(0) * columns).sum() / light.sum())
        down, across = target[0].sum(1), target[0].sum(0)
        assert float((down * (rows[::8] + 3.5)).sum()) == pytest.approx(y, abs=4)
        assert float((across * (columns[::8] + 3.5)).sum()) == pytest.approx(x, abs=4)
    assert shown or changed.get("scale") == [0.3, 0.3] or not changed


def test_a_point_outside_its_image_is_on_its_edge():
    torch.manual_seed(0)
    found = READS.transform({"scale": [1, 1], "hflip": 0})(sample([(-20, 50), (500, 900)]))
    assert float(found.target.sum()) == pytest.approx(2, abs=1e-5)
    assert found.target[0, -1, -1] > 0.5


@pytest.mark.parametrize("spread", [1e-3, 0.4, 4.0, 1e4])
def test_a_map_is_finite_at_any_spread_and_every_edge(spread):
    reads = PointsInput((3, 64, 32), spread=spread)
    places = torch.tensor([[-0.99, -0.99], [31.99, 63.99], [7.5, 8.0], [8.0, 7.5]])
    found = reads.map_of(places, torch.ones(4))
    assert found.isfinite().all()
    assert float(found.sum()) == pytest.approx(4, abs=1e-4)


def test_an_image_of_whose_points_nothing_is_known_is_no_empty_one(tmp_path):
    BLACK.save(tmp_path / "a.png")
    for unknown in (READS.read(tmp_path / "a.png"), BLACK):  # from a file, or of a data set that knows images alone
        assert READS.transform()(unknown).shape == READS.input_size, "to be counted it need not be marked"
        with pytest.raises(DataError, match="no points are marked on this image"):
            READS.transform({})(unknown)
    torch.manual_seed(0)
    assert READS.transform({})(sample([])).target.tolist() == [[[0.0] * 4] * 8]


def test_in_evaluation_the_whole_image_is_read_and_the_number_is_the_target():
    points = [(2, 2), (88, 178)]
    samples = Samples([sample(points, lit(points))].__getitem__, np.array([2.0], np.float32))
    (x, y) = next(iter(loader(samples, READS)))
    assert y.tolist() == [2.0]
    assert x[0, 0, :3, :2].mean() > 0.5
    assert x[0, 0, -3:, -2:].mean() > 0.5, "nothing is cut off"


def test_augmentation_is_a_function_of_the_seed_and_makes_batches():
    read = [sample([(20, 30), (70, 90)], lit([(20, 30), (70, 90)]))] * 4
    samples = Samples(read.__getitem__, np.full(4, 2.0, np.float32))
    items = [Prepared(samples, READS, {"color_jitter": 0.3}, seed=3)[(1, i)] for i in range(4)]
    again = Prepared(samples, READS, {"color_jitter": 0.3}, seed=3)[(1, 2)]
    assert torch.equal(again[0], items[2][0])
    assert torch.equal(again[1], items[2][1])
    assert not torch.equal(items[0][0], items[1][0])
    x, y = collate(items)
    assert x.shape == (4, 3, 64, 32)
    assert y.shape == (4, 1, 8, 4)
    assert isinstance(READS.transform({})(read[0]), Labelled)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1},
        {"scale": 0.5},
        {"scale": [0.5, 0.2]},
        {"scale": [0, 1]},
        {"scale": ["a", "b"]},
        {"hflip": 2},
        {"hflip": float("nan")},
        {"ratio": [1]},
        {"ratio": [1, float("inf")]},
        {"color_jitter": -1},
    ],
    ids=str,
)
def test_other_augmentation_is_refused(wrong):
    with pytest.raises(UsageError):
        READS.transform(wrong)


@pytest.mark.parametrize("values", [{"cell": 7}, {"cell": 0}, {"spread": 0.0}, {"spread": float("nan")}, {"std": ()}])
def test_values_of_which_nothing_can_be_made_are_refused(values):
    with pytest.raises(UsageError):
        PointsInput((3, 64, 32), **values)
