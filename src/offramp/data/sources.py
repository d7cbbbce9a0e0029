"""Where samples come from: scikit-learn's digits, a folder of images, an .npz file, a data set of torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from offramp.data.folder import read_folder
from offramp.data.npz import read_npz
from offramp.data.samples import Samples, Splits, complete, from_pixels
from offramp.data.torchvision import PREFIX, read_torchvision
from offramp.errors import DataError


def open_splits(
    source: str | Path, validation: int | float | None = None, seed: int = 0, download_to: str | Path = "data"
) -> Splits:
    """Training, validation and test samples of a source.

    Args:
        source: ``digits``; the path of an ``.npz`` file; the path of a folder with one sub-folder a class, or with
            ``train``, ``validation`` and ``test`` above them; or ``torchvision/NAME``, a data set of torchvision.
        validation: how many samples, or what share of them, to cut for validation where the source has no such split.
        seed: by which missing splits are cut; the same seed gives the same splits.
        download_to: the folder where torchvision keeps its data.

    Raises:
        DataError: nothing there, an empty folder, a file of another form, or a download without a network.
    """
    name = str(source)
    parts: dict[str, Samples]
    classes: list[str] | None
    if name == "digits":
        parts, classes = _digits()
    elif name.startswith(PREFIX):
        parts, classes = read_torchvision(name.removeprefix(PREFIX), Path(download_to))
    elif name.endswith(".npz"):
        parts, classes = read_npz(Path(name))
    elif Path(name).is_dir():
        parts, classes = read_folder(Path(name))
    else:
        raise DataError(
            f"there is no data at {name!r}: give a folder of images, an .npz file, {PREFIX}NAME (downloads), or digits"
        )
    label = Path(name).name if Path(name).exists() else name
    return complete(label, parts, classes, validation, seed)


def _digits() -> tuple[dict[str, Samples], list[str]]:
    """The 1,797 handwritten digits that scikit-learn ships: 8 × 8 pixels, grey levels 0 to 16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.clip(digits.images * 16, 0, 255).astype(np.uint8)
    return {"all": from_pixels(pixels, digits.target.astype(np.int64))}, [str(n) for n in digits.target_names]
