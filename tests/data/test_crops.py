"""Images cut into crops: every pixel and every point stands in one of them."""

import pickle
from itertools import product

import numpy as np
import pytest
import torch
from helpers import points_file
from PIL import Image

from offramp import DataError, UsageError
from offramp.data import Samples, in_crops, open_splits, splits_in_crops
from offramp.inputs import Marked, PointsInput, cut, input_from_json, input_to_json

GRIDS = [(1, 1), (1, 2), (2, 3), (3, 2), (5, 1), (7, 7)]
SIZES = [(7, 7), (8, 11), (36, 64), (61, 47)]


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("grid", "size"), [*product(GRIDS, SIZES)])
def test_crops_side_by_side_are_the_image(grid, size):
    image = noise(*size)
    crops = [np.asarray(crop) for crop in cut(image, grid)]
    assert len(crops) == grid[0] * grid[1]
    rows = [np.concatenate(crops[r * grid[1] : (r + 1) * grid[1]], 1) for r in range(grid[0])]
    assert np.array_equal(np.concatenate(rows), np.asarray(image))
    for i in (0, 1):
        sides = {crop.shape[i] for crop in crops}
        assert max(sides) - min(sides) <= 1


@pytest.mark.parametrize(("grid", "size"), [*product(GRIDS, SIZES)])
def test_every_point_lies_in_one_crop_on_the_pixel_that_it_lay_on(grid, size):
    image, rng = noise(*size), np.random.default_rng(1)
    width, height = size
    edges = [(round(width * j / grid[1]), round(height * i / grid[0])) for i in range(4) for j in range(4)]
    outside = [(-3, 2), (width, height), (width + 9.5, -1), (0, height - 1e-6)]
    points = np.array([*(rng.random((40, 2)) * size), *edges, *outside, (2, 2), (2, 2)], np.float32)
    weights = rng.random(len(points)).astype(np.float32)
    crops = cut(Marked(image, points, weights), grid)
    assert sorted(np.concatenate([crop.weights for crop in crops])) == sorted(weights)
    pixels = np.asarray(image)
    for crop in crops:
        own = np.asarray(crop.image)
        for point, weight in zip(crop.points, crop.weights, strict=True):
            x, y = points[np.flatnonzero(weights == weight)[0]].clip(0, [width - 1, height - 1])
            column, row = point.clip(0, [own.shape[1] - 1, own.shape[0] - 1]).astype(int)
            assert np.array_equal(own[row, column], pixels[int(y), int(x)])


def test_a_sample_of_one_crop_is_itself():
    for sample in (noise(4, 4), Marked(noise(4, 4)), "anything"):
        assert cut(sample, (1, 1)) == [sample]


def test_an_image_without_points_gives_crops_without():
    assert all(isinstance(crop, Image.Image) for crop in cut(noise(8, 8), (2, 2)))
    assert [crop.points for crop in cut(Marked(noise(8, 8)), (2, 2))] == [None] * 4


@pytest.mark.parametrize(
    ("sample", "message"),
    [(noise(2, 9), "2 × 9 pixels has no 3 rows and 3 columns"), ("a clip", "this sample is str"), (None, "NoneType")],
)
def test_what_has_no_such_crops(sample, message):
    with pytest.raises(DataError, match=message):
        cut(sample, (3, 3))


@pytest.fixture
def frames(tmp_path):
    points = [[(1, 1), (20, 1), (20, 30)], [], [(-5, 90)], [(12, 16), (11.9, 15.9)]]
    split = np.array(["train", "train", "validation", "test"])
    images = [np.full((32, 24, 3), 40 * i, np.uint8) for i in range(4)]
    return points_file(tmp_path / "f.npz", images, points, split=split)


def test_crops_of_a_split_stand_in_order_with_their_numbers(frames):
    whole = open_splits(frames, kind="points")
    splits = splits_in_crops(whole, (2, 2))
    assert splits.train.targets.tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    assert splits.train.targets.dtype == np.float32
    assert splits.validation.targets.tolist() == [0, 0, 1, 0], "outside the image is at its edge"
    assert splits.test.targets.tolist() == [1, 0, 0, 1], "an edge belongs to what comes after it"
    assert splits.record == {**whole.record, "crops": [2, 2]}
    samples = pickle.loads(pickle.dumps(splits.train))
    for i in (7, 0, 3, 3, 5):
        found = samples.read(i)
        assert found.image.size == (12, 16)
        assert found.image.getpixel((0, 0))[0] == 40 * (i // 4)
        assert found.weights.sum() == samples.targets[i]
    named = in_crops(Samples(whole.train.read, whole.train.targets, ["a", "b"]), (1, 2))
    assert named.names == ["a#0", "a#1", "b#0", "b#1"]
    assert splits_in_crops(whole, (1, 1)) is whole


def test_numbers_alone_cannot_be_cut(frames):
    with pytest.raises(DataError, match="no points are marked"):
        in_crops(open_splits(frames).train, (2, 2))


@pytest.mark.parametrize("crops", [[3], [0, 2], [2, 2, 2], [1.5, 2], "ab", 4, [64, 64], [-1, -4], None])
def test_no_grid(crops):
    model = torch.nn.Identity()
    model.pretrained_cfg = {"input_size": (3, 32, 32)}
    with pytest.raises(UsageError, match="crops are"):
        PointsInput.for_backbone(model, (3, 32, 32), crops=crops)


def test_a_grid_is_kept():
    reads = PointsInput((3, 32, 32), crops=(3, 2))
    assert input_from_json(input_to_json(reads)) == reads
    assert reads.about().endswith("each one of 3 × 2 crops")
    old = {name: value for name, value in input_to_json(reads).items() if name != "crops"}
    assert input_from_json(old).crops == (1, 1), "what was saved before there were crops"
