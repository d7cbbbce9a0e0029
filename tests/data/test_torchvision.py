"""torchvision's data sets, from local files; nothing is downloaded in a test."""

import gzip
import struct
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

from offramp import DataError, UsageError
from offramp.data import open_splits


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_a_local_copy(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 20)):
        pixels, labels = rng.integers(0, 255, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            (raw / f"{part}-{kind}-ubyte").write_bytes(idx(array))
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    splits = open_splits("torchvision/FashionMNIST", validation=10, download_to=tmp_path)
    assert splits.record["sizes"] == {"train": 50, "validation": 10, "test": 20}
    assert splits.classes[9] == "Ankle boot"
    assert np.array_equal(np.asarray(splits.test.read(19)), pixels[19])


def test_no_network(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(FashionMNIST, "download", fail)
    with pytest.raises(DataError, match="could not be downloaded \\(is there a network\\?\\)"):
        open_splits("torchvision/FashionMNIST", download_to=tmp_path)


def test_unknown_name(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'FashionMNIST'"):
        open_splits("torchvision/FashionMnist", download_to=tmp_path)
