"""The folder layout of Speech Commands (1804.03209): one sub-folder a word, and lists of what is held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from offramp.data.folder import read_classes
from offramp.data.samples import Samples
from offramp.errors import DataError
from offramp.inputs import Input

_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"
"""The sub-folder of long recordings, which are no word: for ``noise_folder`` in a recipe's ``augment``."""


def is_speech_commands(path: Path) -> bool:
    """Whether a folder has both lists."""
    return all((path / name).is_file() for name in _LISTS.values())


def read_speech_commands(path: Path, kind: type[Input]) -> tuple[dict[str, Samples], list[str]]:
    """The splits of such a folder and its words; what is in no list is for training.

    Args:
        path: the folder; its lists name files below it, ``WORD/FILE``, one a line.
        kind: what the files hold.

    Raises:
        DataError: no words, or a list that names a file that is not there, or twice.
    """
    samples, classes = read_classes(path, kind, leave_out=(NOISE,))
    rows = {Path(name).relative_to(path).as_posix(): i for i, name in enumerate(samples.names or ())}
    parts: dict[str, list[int]] = {}
    for split, file in _LISTS.items():
        parts[split] = []
        for name in (path / file).read_text().splitlines():
            if name not in rows:
                raise DataError(f"{path / file} names {name}, which is not there or named before")
            parts[split].append(rows.pop(name))
    parts = {"train": list(rows.values()), **parts}
    return {split: samples.take(np.array(found, dtype=np.int64)) for split, found in parts.items()}, classes
