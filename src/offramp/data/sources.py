"""Where samples come from, by the name of a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from offramp.data.folder import read_folder
from offramp.data.huggingface import PREFIX as HF_PREFIX
from offramp.data.huggingface import is_saved, read_huggingface
from offramp.data.marked import is_disco, is_shanghaitech, read_disco, read_shanghaitech
from offramp.data.npz import read_npz
from offramp.data.samples import Samples, Splits, complete, from_pixels
from offramp.data.shards import read_shards
from offramp.data.speech_commands import is_speech_commands, read_speech_commands
from offramp.data.torchvision import PREFIX, read_torchvision
from offramp.errors import DataError
from offramp.inputs import Input
from offramp.registry import INPUTS


def open_splits(
    source: str | Path,
    validation: int | float | None = None,
    seed: int = 0,
    download_to: str | Path = "data",
    kind: str | type[Input] = "image",
) -> Splits:
    """Training, validation and test samples of a source.

    Args:
        source: ``digits``; the path of an ``.npz`` file; the path of a folder with one sub-folder a class, or with
            ``train``, ``validation`` and ``test`` above them, or with the lists of Speech Commands, or laid out as
            ShanghaiTech or DISCO, where images have points; ``.tar`` shards of
            WebDataset, as one path or a pattern; ``torchvision/NAME``, a data set of torchvision; ``hf/OWNER/NAME``,
            one of Hugging Face, or the folder of one that was saved to disk.
        validation: how many samples, or what share of them, to cut for validation where the source has no such split.
        seed: by which missing splits are cut; the same seed gives the same splits.
        download_to: the folder where torchvision keeps its data.
        kind: what files hold: a name from ``offramp list inputs``, or a class.

    Raises:
        DataError: nothing there, an empty folder, a file of another form, or a download without a network.
    """
    name, holds = str(source), INPUTS.resolve(kind)
    parts: dict[str, Samples]
    classes: list[str] | None
    if name == "digits":
        parts, classes = _digits()
    elif name.startswith(PREFIX):
        parts, classes = read_torchvision(name.removeprefix(PREFIX), Path(download_to))
    elif name.startswith(HF_PREFIX):
        parts, classes = read_huggingface(name.removeprefix(HF_PREFIX), holds)
    elif name.endswith(".tar"):
        parts, classes = read_shards(name, holds)
    elif name.endswith(".npz"):
        parts, classes = read_npz(Path(name), holds)
    elif is_saved(Path(name)):
        parts, classes = read_huggingface(Path(name), holds)
    elif is_speech_commands(Path(name)):
        parts, classes = read_speech_commands(Path(name), holds)
    elif is_shanghaitech(Path(name)):
        parts, classes = read_shanghaitech(Path(name), holds), None
    elif is_disco(Path(name)):
        parts, classes = read_disco(Path(name), holds), None
    elif Path(name).is_dir():
        parts, classes = read_folder(Path(name), holds)
    else:
        raise DataError(
            f"there is no data at {name!r}: give a folder of {holds.noun}, an .npz file, .tar shards, {PREFIX}NAME or "
            f"{HF_PREFIX}NAME (downloads), or digits"
        )
    label = Path(name).name if Path(name).exists() else name
    return complete(label, parts, classes, validation, seed)


def _digits() -> tuple[dict[str, Samples], list[str]]:
    """The 1,797 handwritten digits that scikit-learn ships: 8 × 8 pixels, grey levels 0 to 16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.clip(digits.images * 16, 0, 255).astype(np.uint8)
    return {"all": from_pixels(pixels, digits.target.astype(np.int64))}, [str(n) for n in digits.target_names]
