"""Data sets of Hugging Face: by name, from a folder that ``save_to_disk`` wrote, or as an object."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from offramp.data.samples import Samples
from offramp.errors import DataError, UsageError
from offramp.inputs import ImageInput, Input

PREFIX = "hf/"
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_LABELS = ("label", "labels", "target", "targets", "fine_label", "class", "y")


def is_saved(path: Path) -> bool:
    """Whether a folder is one that ``save_to_disk`` wrote."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def is_huggingface(data: Any) -> bool:
    """Whether an object is a data set of the library, which need not be installed."""
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "features")


def read_huggingface(name: str | Path, kind: type[Input]) -> tuple[dict[str, Samples], list[str] | None]:
    """The splits of a data set and its class names.

    Samples are in the first column of images (or of sounds), which are read as files are; labels in the first column of
    classes, or else in one that is called ``label`` or the like.

    Args:
        name: of the hub, ``owner/name`` or ``owner/name:configuration``; or the folder of one that was saved.
        kind: what a sample is.

    Raises:
        UsageError: the library is not installed.
        DataError: no such data set, no network, or no columns of samples and labels.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError("data sets of Hugging Face need their library: pip install 'offramp[hf]'") from error
    try:
        if isinstance(name, Path):
            found: Any = datasets.load_from_disk(str(name))
        else:
            path, _, configuration = name.partition(":")
            found = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the library raises whatever its layers raise
        raise DataError(f"the data set {name} could not be opened: {' '.join(str(error).split())}") from error
    splits: dict[str, Any] = dict(found) if isinstance(found, dict) else {"all": found}
    parts = {ours: splits[theirs] for ours, names in _SPLITS.items() for theirs in names if theirs in splits}
    if not parts:
        parts = {"all": next(iter(splits.values()))}
    label = _label_column(next(iter(parts.values())))
    classes = getattr(next(iter(parts.values())).features[label], "names", None)
    return {part: samples_of(data, kind) for part, data in parts.items()}, classes


def samples_of(data: Any, kind: type[Input] = ImageInput) -> Samples:
    """The samples of one split. Raises ``DataError`` where it has no column of samples or of labels."""

    label, column = _label_column(data), _sample_column(data)
    targets = np.asarray(data[label])
    if targets.ndim != 1 or targets.dtype.kind not in "iuf":
        raise DataError(
            f"the column {label!r} of the data set is {targets.dtype} {targets.shape}: it is one number each"
        )
    files = data.cast_column(column, type(data.features[column])(decode=False)) if column else data
    targets = targets.astype(np.float32 if targets.dtype.kind == "f" else np.int64)
    return Samples(partial(_file, kind.read, files.select_columns([column]), column), targets)


def _file(read: Callable[..., Any], data: Any, column: str, i: int) -> Any:
    value = data[i][column]
    if value is None:
        raise DataError(f"sample {i} of the data set holds nothing")
    content = value["bytes"]
    return read(value["path"]) if content is None else read(io.BytesIO(content), f"sample {i} of the data set")


def _sample_column(data: Any) -> str:
    for name, feature in data.features.items():
        if type(feature).__name__ in ("Image", "Audio"):
            return str(name)
    raise DataError(f"the data set has no column of images: it has {', '.join(data.features)}")


def _label_column(data: Any) -> str:
    for name, feature in data.features.items():
        if hasattr(feature, "names"):
            return str(name)
    for name in _LABELS:
        if name in data.features:
            return name
    raise DataError(f"the data set has no column of labels: it has {', '.join(data.features)}")
