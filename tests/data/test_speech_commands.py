"""The folder layout of Speech Commands, on miniatures."""

import numpy as np
import pytest
import soundfile

from offramp import DataError
from offramp.data import open_splits

WORDS = ("no", "yes")


@pytest.fixture
def folder(tmp_path):
    for word in (*WORDS, "_background_noise_"):
        (tmp_path / word).mkdir()
        for i in range(6):
            soundfile.write(tmp_path / word / f"{i:08x}_nohash_0.wav", np.full(800, 0.1), 16_000)
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "validation_list.txt").write_text("no/00000001_nohash_0.wav\nyes/00000001_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("yes/00000005_nohash_0.wav\n")
    return tmp_path


def test_lists_say_what_is_held_out_and_noise_is_no_word(folder):
    splits = open_splits(folder, kind="log-mel")
    assert splits.classes == WORDS
    assert splits.record["sizes"] == {"train": 9, "validation": 2, "test": 1}
    assert splits.record["cut"] == []
    assert splits.test.names == [str(folder / "yes" / "00000005_nohash_0.wav")]
    assert splits.test.targets.tolist() == [1]
    assert sorted(splits.train.targets.tolist()) == [0] * 5 + [1] * 4
    assert splits.train.read(0).rate == 16_000


@pytest.mark.parametrize("name", ["no/00000009_nohash_0.wav", "yes/00000001_nohash_0.wav", ""])
def test_a_list_that_is_wrong_is_named(folder, name):
    """Not there, in both lists, an empty line; and twice in one."""
    (folder / "testing_list.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match=r"testing_list.txt names .*, which is not there or named before"):
        open_splits(folder, kind="log-mel")
    (folder / "testing_list.txt").write_text("yes/00000002_nohash_0.wav\n" * 2)
    with pytest.raises(DataError, match=r"names yes/00000002_nohash_0.wav, which is not there or named before"):
        open_splits(folder, kind="log-mel")


def test_folders_of_clips_need_no_lists(folder):
    for name in ("validation_list.txt", "testing_list.txt"):
        (folder / name).unlink()
    splits = open_splits(folder, kind="log-mel")
    assert splits.classes == ("_background_noise_", *WORDS)
    (folder / "yes" / "00000001_nohash_0.wav").write_text("no sound")
    everything = [(part, i, name) for part in splits.parts.values() for i, name in enumerate(part.names)]
    ((part, i),) = [(part, i) for part, i, name in everything if name.endswith("yes/00000001_nohash_0.wav")]
    with pytest.raises(DataError, match=r"yes/00000001_nohash_0.wav could not be read as sound"):
        part.read(i)
