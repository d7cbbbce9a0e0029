"""Folders of images."""

import numpy as np
import pytest
from PIL import Image

from offramp import DataError
from offramp.data import open_splits
from offramp.data.folder import read_folder
from offramp.inputs import ImageInput


def fill(folder, classes=("cat", "dog"), n=10):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.full((8, 8, 3), 20 * label + i, np.uint8)).save(folder / name / f"{i}.png")


def test_one_folder_a_class_is_cut_by_seed(tmp_path):
    fill(tmp_path)
    splits = open_splits(tmp_path)
    assert splits.classes == ("cat", "dog")
    assert splits.record["sizes"] == {"train": 12, "validation": 4, "test": 4}
    assert np.asarray(splits.test.read(0)).shape == (8, 8, 3)


def test_given_splits(tmp_path):
    for split, n in (("train", 6), ("val", 3), ("test", 2)):
        fill(tmp_path / split, n=n)
    splits = open_splits(tmp_path)
    assert splits.record["sizes"] == {"train": 12, "validation": 6, "test": 4}
    assert splits.record["cut"] == []
    assert splits.test.names[0].endswith("0.png")


def test_a_test_split_alone(tmp_path):
    fill(tmp_path / "test", n=3)
    splits = open_splits(tmp_path, seed=3)
    assert splits.classes == ("cat", "dog")
    assert splits.record["sizes"] == {"test": 6}
    with pytest.raises(DataError, match=f"^{tmp_path.name} has no train split, only test$"):
        splits.of("train")
    fill(tmp_path / "val", n=2)
    assert open_splits(tmp_path).record["sizes"] == {"validation": 4, "test": 6}


def test_classes_that_are_called_like_splits(tmp_path):
    fill(tmp_path, classes=("test", "val"))
    assert open_splits(tmp_path).record["sizes"] == {"train": 12, "validation": 4, "test": 4}
    fill(tmp_path / "test" / "more", classes=("here",))
    fill(tmp_path, classes=("dog",))
    assert open_splits(tmp_path).classes == ("dog", "test", "val")


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_splits(tmp_path)


def test_a_class_without_images(tmp_path):
    fill(tmp_path)
    (tmp_path / "emu").mkdir()
    with pytest.raises(DataError, match="emu"):
        open_splits(tmp_path)


def test_splits_with_other_classes(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", classes=("cat", "emu"))
    with pytest.raises(DataError, match="are not those of"):
        open_splits(tmp_path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    fill(tmp_path)
    (tmp_path / "cat" / "0.png").write_text("no")
    files, _ = read_folder(tmp_path, ImageInput)
    with pytest.raises(DataError, match=r"cat.0\.png is no image"):
        files["all"].read(0)
    assert files["all"].read(1).size == (8, 8)
