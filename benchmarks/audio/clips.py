"""The clips, decoded once, and who speaks in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.audio.plan import Field
from offramp.data import Samples, Splits
from offramp.data.arrays import read_arrays
from offramp.data.npz import read_npz
from offramp.data.samples import complete
from offramp.inputs import LogMelInput

LABELLED = 0.25
"""The share of the training speakers whose labels are kept where there are few."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Clips cut by speaker.

    Args:
        splits: no speaker stands in two of them.
        few: rows of the training split whose speakers keep their labels.
        others: the other rows.
    """

    splits: Splits
    few: np.ndarray
    others: np.ndarray


def folds_of(place: Field, source: str) -> dict[str, Fold]:
    """A fold by its name: the speaker who is tested on, or nothing where the file has splits.

    Args:
        place: where the comparison takes place.
        source: an ``.npz`` file with an array ``speaker``.
    """
    parts, classes = read_npz(Path(source), LogMelInput)
    speakers = read_arrays(Path(source), ("speaker", "split"))[0]
    who = speakers["speaker"]
    if not place.folds:
        cut = {name: _decoded(samples) for name, samples in parts.items()}
        return {"": _fold(source, cut, classes, who[speakers["split"] == "train"])}
    everything, found = _decoded(parts["all"]), {}
    for number, tested in enumerate(place.folds):
        calibrating = place.folds[(number + 1) % len(place.folds)]
        rows = {
            "train": np.flatnonzero((who != tested) & (who != calibrating)),
            "validation": np.flatnonzero(who == calibrating),
            "test": np.flatnonzero(who == tested),
        }
        cut = {name: everything.take(own) for name, own in rows.items()}
        found[tested] = _fold(source, cut, classes, who[rows["train"]])
    return found


def _fold(source: str, parts: dict[str, Samples], classes: list[str] | None, who: np.ndarray) -> Fold:
    """Speakers keep their labels by lot; a clip of nobody (silence) counts as a speaker of its own."""
    names = np.where(who == "", np.char.add("nobody ", np.arange(len(who)).astype(str)), who)
    speakers = np.random.default_rng(0).permutation(np.unique(names))
    labelled = np.isin(names, speakers[: round(LABELLED * len(speakers))])
    splits = complete(Path(source).name, parts, classes, None, 0)
    return Fold(splits, np.flatnonzero(labelled), np.flatnonzero(~labelled))


def _decoded(samples: Samples) -> Samples:
    clips = [samples.read(i) for i in range(len(samples))]
    return Samples(partial(list.__getitem__, clips), samples.targets)
