"""The three forms of .npz files."""

import io

import numpy as np
import pytest
from PIL import Image

from offramp import DataError
from offramp.data import open_splits

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (40, 6, 5), dtype=np.uint8)
LABELS = (np.arange(40) % 2).astype(np.uint8)


def encoded(pixels):
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    return np.frombuffer(b"".join(files), np.uint8), offsets


def test_pixels(tmp_path):
    np.savez(
        tmp_path / "d.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:9], y_test=LABELS[:9], classes=["a", "b"]
    )
    splits = open_splits(tmp_path / "d.npz", validation=10)
    assert splits.record["sizes"] == {"train": 30, "validation": 10, "test": 9}
    assert splits.record["source"] == "d.npz"
    assert splits.classes == ("a", "b")
    assert np.array_equal(np.asarray(splits.test.read(3)), PIXELS[3])
    assert splits.test.targets.dtype == np.int64


def test_joined_files_by_split(tmp_path):
    data, offsets = encoded(PIXELS)
    np.savez(
        tmp_path / "d.npz",
        **{
            f"{s}_{k}": v
            for s in ("train", "test")
            for k, v in zip(("bytes", "offsets", "labels"), (data, offsets, LABELS), strict=True)
        },
    )
    splits = open_splits(tmp_path / "d.npz")
    assert np.array_equal(np.asarray(splits.test.read(7)), PIXELS[7])


def test_joined_files_with_a_split_column(tmp_path):
    data, offsets = encoded(PIXELS)
    split = np.array(["train"] * 20 + ["validation"] * 12 + ["test"] * 8)
    np.savez(tmp_path / "d.npz", bytes=data, offsets=offsets, labels=LABELS, split=split)
    splits = open_splits(tmp_path / "d.npz")
    assert splits.record["sizes"] == {"train": 20, "validation": 12, "test": 8}
    assert splits.record["cut"] == []
    assert np.array_equal(np.asarray(splits.test.read(0)), PIXELS[32])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "has no known form: it holds a"),
        ({"x_train": PIXELS}, "lacks the array 'y_train'"),
        ({"x_train": PIXELS, "y_train": LABELS[:3]}, "one image a label"),
        ({"x_train": PIXELS.astype(np.float32), "y_train": LABELS}, "pixels must be uint8"),
        ({"train_bytes": PIXELS.ravel(), "train_offsets": np.arange(3), "train_labels": LABELS}, "do not fit together"),
    ],
)
def test_other_forms(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_splits(tmp_path / "d.npz")


def test_pickles_are_not_opened(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=np.array([{"a": 1}], dtype=object), y_train=LABELS[:1])
    with pytest.raises(DataError, match="allow_pickle=False"):
        open_splits(tmp_path / "d.npz")


def test_no_npz(tmp_path):
    (tmp_path / "d.npz").write_bytes(b"PK not really")
    with pytest.raises(DataError, match=r"is no \.npz file"):
        open_splits(tmp_path / "d.npz")
    with pytest.raises(DataError, match="there is no file"):
        open_splits(tmp_path / "e.npz")
