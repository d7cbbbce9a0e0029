"""Points on images: ``.npz`` files, ShanghaiTech's and DISCO's layouts, written by these tests; and what is damaged."""

import numpy as np
import pytest
from helpers import points_file
from PIL import Image
from scipy.io import savemat

from offramp import DataError
from offramp.data import open_splits
from offramp.inputs import Marked

POINTS = [[(3.5, 4.0)], [], [(1.0, 2.0), (30.0, -5.0), (7.25, 9.0)]]


def jpeg(file):
    Image.new("RGB", (24, 32), (90, 60, 30)).save(file)


def heads(points):
    """As ShanghaiTech has them: a struct in a cell in a struct."""
    inner = np.zeros((1, 1), [("location", object), ("number", object)])
    inner[0, 0] = (np.array(points, float).reshape(-1, 2), np.array([[len(points)]]))
    outer = np.empty((1, 1), object)
    outer[0, 0] = inner
    return {"image_info": outer}


def npz(file, **changed):
    split = np.array(["train", "validation", "test"])
    return points_file(file, [np.full((32, 24, 3), 90, np.uint8)] * 3, POINTS, **{"split": split, **changed})


def test_an_npz_file_with_points(tmp_path):
    splits = open_splits(npz(tmp_path / "c.npz"), kind="points")
    assert splits.classes is None
    for name, points in zip(("train", "validation", "test"), POINTS, strict=True):
        samples = splits.of(name)
        assert samples.targets.tolist() == [len(points)]
        assert samples.targets.dtype == np.float32
        read = samples.read(0)
        assert isinstance(read, Marked)
        assert np.allclose(read.points, np.array(points, np.float32).reshape(-1, 2))
        assert read.weights.tolist() == [1.0] * len(points)
    assert open_splits(npz(tmp_path / "i.npz")).test.read(0).size == (24, 32), "an image knows no points"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"points_xy": np.zeros((4, 3))}, "pairs of finite numbers"),
        ({"points_xy": np.full((4, 2), np.nan)}, "pairs of finite numbers"),
        ({"points_xy": np.array([["a", "b"]] * 4)}, "pairs of finite numbers"),
        ({"point_offsets": np.array([0, 1, 4])}, "point_offsets of .* one more than images"),
        ({"point_offsets": np.array([0.0, 1, 1, 4])}, "point_offsets of .* are float64"),
        ({"point_offsets": np.array([0, 1, 1, 9])}, "do not rise from 0 to its 4 points"),
        ({"point_offsets": np.array([0, 3, 1, 4])}, "do not rise"),
        ({"point_offsets": np.array([-1, 1, 1, 4])}, "do not rise"),
        ({"point_offsets": None}, "no known form"),
        ({"offsets": np.array([0, 5, 3, 9])}, "offsets .* do not rise"),
    ],
)
def test_points_that_do_not_fit_are_named(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        open_splits(npz(tmp_path / "c.npz", **changed), kind="points")


@pytest.fixture
def shanghai(tmp_path):
    for split, numbers in (("train", (1, 2, 10)), ("test", (1,))):
        folder = tmp_path / "part_B" / f"{split}_data"
        beside = folder / ("ground_truth" if split == "train" else "ground-truth")
        (folder / "images").mkdir(parents=True)
        beside.mkdir()
        for i, number in enumerate(numbers):
            jpeg(folder / "images" / f"IMG_{number}.jpg")
            savemat(beside / f"GT_IMG_{number}.mat", heads(POINTS[i]))
    return tmp_path / "part_B"


def test_shanghaitech(shanghai):
    splits = open_splits(shanghai, 1, kind="points")
    assert {name: len(part) for name, part in splits.parts.items()} == {"train": 2, "validation": 1, "test": 1}
    assert sorted([*splits.train.targets, *splits.validation.targets]) == [0, 1, 3]
    assert splits.test.read(0).points.tolist() == [[3.5, 4.0]]
    assert splits.test.names[0].endswith("IMG_1.jpg")


def test_what_is_wrong_with_shanghaitechs_files_is_named(shanghai):
    file = shanghai / "train_data" / "ground_truth" / "GT_IMG_2.mat"
    for content, message in (
        (b"no matrix", "could not be read as MATLAB's"),
        (b"", "could not be read as MATLAB's"),
        (file.read_bytes()[:150], "could not be read as MATLAB's|holds no"),
        (bytes(2**20 + 1), "files of points of up to"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_splits(shanghai, kind="points")
    for values, message in (
        ({"other": 1}, "holds no 'image_info'"),
        ({"image_info": np.zeros((2, 2))}, "no heads where ShanghaiTech's files have them"),
        (heads([(np.nan, 1)]), "no pairs of finite numbers"),
    ):
        savemat(file, values)
        with pytest.raises(DataError, match=message):
            open_splits(shanghai, kind="points")
    file.unlink()
    with pytest.raises(DataError, match=r"there is no file .*GT_IMG_2\.mat"):
        open_splits(shanghai, kind="points")


def test_disco(tmp_path):
    (tmp_path / "imgs").mkdir()
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        (tmp_path / "density" / split).mkdir(parents=True)
        jpeg(tmp_path / "imgs" / f"{name}.jpg")
        values = np.zeros((31, 23))
        values[9:12, 5:8] = 1 / 9
        values[30, 22] = 1.0
        savemat(tmp_path / "density" / split / f"{name}.mat", {"map": values})
    splits = open_splits(tmp_path, kind="points")
    assert {name: len(part) for name, part in splits.parts.items()} == {"train": 1, "validation": 1, "test": 1}
    read = splits.validation.read(0)
    assert splits.validation.targets[0] == pytest.approx(2)
    assert read.weights.sum() == pytest.approx(2, abs=1e-6)
    middle = np.average(read.points[read.points[:, 0] < 15], 0, read.weights[read.points[:, 0] < 15])
    assert np.abs(middle - (6, 10)).max() <= 2, "to within half a block"
    (tmp_path / "imgs" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"there is no image .*a\.jpg"):
        open_splits(tmp_path, kind="points")
    jpeg(tmp_path / "imgs" / "a.jpg")
    for values in (np.full((4, 4), np.inf), np.zeros((2, 2, 2)), np.array(["text"])):
        savemat(tmp_path / "density" / "train" / "a.mat", {"map": values})
        with pytest.raises(DataError, match="no map of finite numbers"):
            open_splits(tmp_path, kind="points")
