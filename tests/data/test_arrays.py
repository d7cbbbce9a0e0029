"""The arrays of an .npz file: no more memory than the file is worth, and nothing that was not asked for."""

import gc
import io
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from offramp import DataError
from offramp.data import open_splits

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 2
GOOD = {"x_test": PIXELS, "y_test": LABELS}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def claims(shape: tuple[int, ...], descr: str = "|u1", content: bytes = b"1234") -> bytes:
    """An array with another shape in its header than it holds."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + content


@contextmanager
def memory_below(limit: int):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x_test", claims((2**31,))),
        ("x_test", claims((3,))),
        ("y_test", claims((2**28,), "<i8")),
        ("classes", claims((10**7,), "|S0", b"")),
        ("classes", claims((10**7,), "<U0", b"")),
        ("y_test", claims((-2, -2))),
    ],
    ids=["vast", "smaller", "vast labels", "no bytes", "no letters", "negative"],
)
def test_a_header_that_is_not_that_of_its_array(tmp_path, name, content):
    np.savez(tmp_path / "d.npz", **{k: v for k, v in GOOD.items() if k != name})
    with zipfile.ZipFile(tmp_path / "d.npz", "a") as file:
        file.writestr(f"{name}.npy", content)
    with memory_below(2**22), pytest.raises(DataError, match=rf"d\.npz is no .*: {name}\.npy says that it is"):
        open_splits(tmp_path / "d.npz")


def test_an_array_that_would_grow_to_far_more_than_its_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("y_test.npy", npy(LABELS))
        with file.open("x_test.npy", "w", force_zip64=True) as member:
            member.write(claims((300, 1024, 1024), content=b""))
            for _ in range(300):
                member.write(bytes(2**20))
    assert (tmp_path / "d.npz").stat().st_size < 3 * 2**20
    with memory_below(2**22), pytest.raises(DataError, match=r"x_test\.npy would grow from .* MB, more than images do"):
        open_splits(tmp_path / "d.npz")


def test_sorted_labels_may_shrink_to_nothing(tmp_path):
    labels = np.repeat(np.arange(2), 50_000)
    np.savez_compressed(tmp_path / "d.npz", x_test=np.zeros((100_000, 2, 2), np.uint8), y_test=labels)
    assert (tmp_path / "d.npz").stat().st_size < 2e4
    assert len(open_splits(tmp_path / "d.npz").test) == 100_000


def test_what_is_not_asked_for_is_not_read(tmp_path):
    np.savez(tmp_path / "d.npz", **GOOD, names=np.array([{"a": 1}], dtype=object))
    with zipfile.ZipFile(tmp_path / "d.npz", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("more.npy", bytes(2**27))
        file.writestr("notes.txt", "no array")
    with memory_below(2**22):
        assert open_splits(tmp_path / "d.npz").record["sizes"] == {"test": 40}


def test_a_file_that_is_cut_anywhere_is_closed_again(tmp_path):
    np.savez(tmp_path / "whole.npz", **GOOD)
    content = (tmp_path / "whole.npz").read_bytes()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for end in range(0, len(content), 97):
            (tmp_path / "d.npz").write_bytes(content[:end])
            with pytest.raises(DataError, match=r"d\.npz is no \.npz file"):
                open_splits(tmp_path / "d.npz")
        gc.collect()
    assert [str(w.message) for w in said] == []


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    np.savez(tmp_path / "d.npz", **GOOD)
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[content.index(PIXELS.tobytes()) + 600] ^= 4
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        open_splits(tmp_path / "d.npz")
