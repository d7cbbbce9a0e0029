"""A broken image among whole ones: named in one sentence, wherever and in whatever process it is read."""

import contextlib
import io

import numpy as np
import pytest
from helpers import squares, tiny_model
from PIL import Image

import offramp
from offramp import DataError
from offramp.data import loader, open_splits
from offramp.data.torchvision import read_torchvision

pytestmark = pytest.mark.slow

BROKEN, SEED = 17, 2
"""The number in the file, which it keeps where a validation split is cut off; and a cut after which it is not among
the sixteen images that are looked at when the data is opened."""


def write_npz(folder):
    """The pixels of ``squares`` as PNG files; the bytes of one were lost."""
    samples = squares(64)
    files = []
    for i in range(64):
        buffer = io.BytesIO()
        samples.read(i).save(buffer, "PNG")
        files.append(buffer.getvalue())
    files[BROKEN] = bytes(len(files[BROKEN]))
    offsets = np.cumsum([0, *map(len, files)])
    arrays = {"bytes": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets, "labels": samples.targets}
    np.savez(folder / "d.npz", **{f"{split}_{k}": v for split in ("train", "test") for k, v in arrays.items()})
    return folder / "d.npz", f"image {BROKEN} of the {{}} split of {folder / 'd.npz'} is no image"


def write_folder(folder):
    """The same as files, one of them cut."""
    samples = squares(64)
    for split in ("train", "test"):
        for i in range(64):
            place = folder / split / str(samples.targets[i])
            place.mkdir(parents=True, exist_ok=True)
            samples.read(i).save(place / f"{i}.bmp")
    sentence = f"{folder}/{{}}/1/{BROKEN}.bmp could not be read as an image: image file is truncated"
    for split in ("train", "test"):
        path = folder / split / "1" / f"{BROKEN}.bmp"
        path.write_bytes(path.read_bytes()[:-40])
    return folder, sentence


@pytest.fixture(params=[write_npz, write_folder], ids=["npz", "folder"])
def source(request, tmp_path):
    return request.param(tmp_path)


def one_sentence(caught, sentence: str) -> bool:
    said = str(caught.value)
    return type(caught.value) is DataError and said.startswith(sentence) and "\n" not in said and len(said) < 300


# torch takes ten seconds to end the processes of a loader that failed
WORKERS = [0, pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("workers", WORKERS)
def test_in_evaluation(source, workers):
    path, sentence = source
    model = tiny_model()
    samples = open_splits(path).test
    with pytest.raises(DataError) as caught:
        offramp.tabulate(model, loader(samples, model.input, 8, workers))
    assert one_sentence(caught, sentence.format("test"))


@pytest.mark.parametrize("workers", WORKERS)
def test_in_training(source, workers, tmp_path):
    path, sentence = source
    samples = open_splits(path, validation=4, seed=SEED).train
    with pytest.raises(DataError) as caught:
        offramp.train(tiny_model(), samples, folder=tmp_path / "run", epochs=1, batch_size=20, workers=workers)
    assert one_sentence(caught, sentence.format("train"))


def test_every_other_image_is_read(source):
    samples = open_splits(source[0]).test
    read = 0
    for i in range(64):
        with contextlib.suppress(DataError):
            read += samples.read(i).size == (16, 16)
    assert read == 63


def test_a_data_set_of_torchvisions(tmp_path, monkeypatch):
    from torchvision import datasets

    class Photos:
        """Four photographs, in files that torchvision would open; one of them is gone."""

        classes = ("a", "b")
        targets = (0, 1, 0, 1)

        def __init__(self, root: str, train: bool) -> None:
            self.root = root

        def __getitem__(self, i: int):
            with open(f"{self.root}/{i}.png", "rb") as file:
                return Image.open(file).convert("L"), self.targets[i]

    for i in (0, 1, 3):
        squares(4).read(i).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_text("no")
    monkeypatch.setattr(datasets, "Flickr8k", Photos)
    parts, _ = read_torchvision("Flickr8k", tmp_path)
    assert parts["test"].read(1).size == (16, 16)
    with pytest.raises(DataError, match=r"^image 2 of the test split of torchvision's Flickr8k is no image$"):
        parts["test"].read(2)
