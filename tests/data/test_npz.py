"""The forms of .npz files."""

import io

import numpy as np
import pytest
from PIL import Image

from offramp import DataError, UsageError
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


def test_joined_files_without_splits_are_cut_by_seed(tmp_path):
    data, offsets = encoded(PIXELS)
    np.savez(tmp_path / "d.npz", bytes=data, offsets=offsets, labels=LABELS)
    splits = open_splits(tmp_path / "d.npz", validation=5)
    assert splits.record["sizes"] == {"train": 30, "validation": 5, "test": 5}
    assert splits.record["cut"] == ["test", "validation"]


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


JOINED, OFFSETS = encoded(PIXELS)
JPEGS = {"test_bytes": JOINED, "test_offsets": OFFSETS, "test_labels": LABELS}
BAD = {
    "an offset below 0": ({**JPEGS, "test_offsets": OFFSETS - 1}, "do not fit together"),
    "an offset past the end": ({**JPEGS, "test_bytes": JOINED[:-1]}, "do not fit together"),
    "offsets that fall": (
        {**JPEGS, "test_offsets": OFFSETS[[0, 2, 1, *range(3, 41)]]},
        "the test split of .* do not rise: image 1 would end before it begins",
    ),
    "unsigned offsets that fall": (
        {**JPEGS, "test_offsets": OFFSETS[[0, 2, 1, *range(3, 41)]].astype(np.uint32)},
        "image 1 would end before it begins",
    ),
    "vast offsets": ({**JPEGS, "test_offsets": OFFSETS.astype(np.uint64) + 2**63}, "do not fit together"),
    "broken offsets": ({**JPEGS, "test_offsets": OFFSETS + 0.5}, "with whole numbers as offsets"),
    "offsets in a table": ({**JPEGS, "test_offsets": OFFSETS[None]}, "with whole numbers as offsets"),
    "no offsets": ({**JPEGS, "test_offsets": OFFSETS[:0]}, "do not fit together"),
    "bytes of another kind": ({**JPEGS, "test_bytes": JOINED.astype(np.int16)}, "joined images are uint8 bytes"),
    "labels in a table": ({**JPEGS, "test_labels": LABELS[:, None]}, r"are uint8 \(40, 1\): they are one number"),
    "one label": ({**JPEGS, "test_labels": LABELS[0]}, "one number an image"),
    "names as labels": ({**JPEGS, "test_labels": LABELS.astype(str)}, "one number an image"),
    "complex labels": ({**JPEGS, "test_labels": LABELS * 1j}, "one number an image"),
    "numbers and class names": (
        {**JPEGS, "test_labels": LABELS + 0.5, "classes": ["a", "b"]},
        "one class number an image, as the classes have names",
    ),
    "no number": (
        {**JPEGS, "test_labels": np.r_[LABELS[:-1], np.nan]},
        "label 39 of the test split .* no finite number",
    ),
    "infinite": ({**JPEGS, "test_labels": np.r_[1e300, LABELS[1:]]}, "label 0 of the test split .* no finite number"),
    "a class below 0": (
        {**JPEGS, "test_labels": LABELS.astype(int) - 1, "classes": ["a", "b"]},
        "label 0 of the test split of .* is -1; the labels go from 0 to 1",
    ),
    "a class without a name": ({**JPEGS, "classes": ["a"]}, "label 1 of .* is 1; the labels go from 0 to 0"),
    "a class beyond all": (
        {**JPEGS, "test_labels": LABELS.astype(np.uint64) + 2**63},
        "label 0 of .* is 9223372036854775808; the labels go from",
    ),
    "classes in a table": ({**JPEGS, "classes": [["a", "b"]]}, "one name a class"),
    "one class for all": ({**JPEGS, "classes": "a"}, "one name a class"),
    "no classes": ({**JPEGS, "classes": np.array([], str)}, "one name a class"),
    "five colours": ({"x_test": np.zeros((40, 6, 5, 5), np.uint8), "y_test": LABELS}, "pixels must be uint8"),
    "no pixels": ({"x_test": PIXELS[:, :0], "y_test": LABELS}, "an image of the test split of .* has no pixels"),
    "lines": ({"x_test": np.zeros((1, 1, 30_000), np.uint8), "y_test": [0]}, "one side more than 1000 times the other"),
    "one number for pixels": ({"x_test": np.uint8(3), "y_test": LABELS}, "pixels must be uint8"),
    "splits by number": (
        {"bytes": JOINED, "offsets": OFFSETS, "labels": LABELS, "split": np.zeros(40, int)},
        "one name an image",
    ),
    "too few splits": (
        {"bytes": JOINED, "offsets": OFFSETS, "labels": LABELS, "split": np.array(["train"] * 39)},
        "one name an image",
    ),
    "no images": ({"x_test": PIXELS[:0], "y_test": LABELS[:0]}, "the test split of d.npz holds no samples"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD.keys())
def test_arrays_that_cannot_be(tmp_path, arrays, message):
    train = {key.replace("test", "train"): value for key, value in arrays.items()}
    for form in (arrays, train):
        np.savez(tmp_path / "d.npz", **form)
        with pytest.raises(DataError, match=message if form is arrays else None) as caught:
            open_splits(tmp_path / "d.npz", validation=0.2)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [LABELS, LABELS.astype(">i2"), LABELS.astype(np.uint64), LABELS / 2, -LABELS / 2])
def test_labels_of_every_type(tmp_path, labels):
    np.savez(tmp_path / "d.npz", x_train=PIXELS, y_train=labels)
    splits = open_splits(tmp_path / "d.npz")
    assert splits.train.targets.dtype == (np.float32 if labels.dtype.kind == "f" else np.int64)
    assert set(splits.train.targets) == set(labels.tolist())


def test_a_source_of_test_samples_alone(tmp_path):
    np.savez(tmp_path / "d.npz", **JPEGS, classes=[f"class {i}" for i in range(1000)])
    splits = open_splits(tmp_path / "d.npz", validation=100, seed=7)
    assert splits.record["sizes"] == {"test": 40}
    assert splits.record["cut"] == []
    assert splits.record["fingerprints"].keys() == {"test"}
    assert len(splits.classes) == 1000
    assert np.array_equal(np.asarray(splits.test.read(7)), PIXELS[7])
    for name in ("train", "validation"):
        with pytest.raises(DataError, match=rf"^d\.npz has no {name} split, only test$"):
            getattr(splits, name)
    with pytest.raises(UsageError, match="did you mean 'test'"):
        splits.of("tset")


def test_a_column_of_test_samples_alone(tmp_path):
    np.savez(tmp_path / "d.npz", bytes=JOINED, offsets=OFFSETS, labels=LABELS, split=np.array(["test"] * 40))
    assert open_splits(tmp_path / "d.npz").record["sizes"] == {"test": 40}


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
