"""Pictures of digits with what somebody says beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from benchmarks.audiovisual.plan import ENERGY, PAIRS, SPEAKERS
from offramp.data import Samples, Splits
from offramp.data.arrays import read_arrays
from offramp.data.npz import read_npz
from offramp.data.samples import complete
from offramp.inputs import ImageInput, LogMelInput, Pair

_FITTED = 10_000
"""Pictures that the principal components are of."""


@dataclass(frozen=True, eq=False)
class Digits:
    """All pictures, degraded, and all clips.

    Args:
        seen: pixels of each part, uint8 ``(n, 28, 28)``.
        numbers: which digit each picture shows.
        clips: what is said.
        said: which digit each clip is.
        speakers: who says it.
        components: how many principal components the pictures keep.
    """

    seen: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    clips: Samples
    said: np.ndarray
    speakers: np.ndarray
    components: int


def digits(images: str, clips: str) -> Digits:
    """Read both files.

    Args:
        images: an ``.npz`` of pixels with a training and a test part.
        clips: an ``.npz`` of clips with an array ``speaker``.
    """
    parts, _ = read_npz(Path(images), ImageInput)
    pixels = {name: np.stack([np.array(p.read(i)) for i in range(len(p))]) for name, p in parts.items()}
    spoken = read_npz(Path(clips), LogMelInput)[0]["all"]
    heard = [spoken.read(i) for i in range(len(spoken))]
    who = read_arrays(Path(clips), ("speaker",))[0]["speaker"]
    seen, components = degraded(pixels)
    numbers = {name: part.targets for name, part in parts.items()}
    decoded = Samples(partial(list.__getitem__, heard), spoken.targets)
    return Digits(seen, numbers, decoded, spoken.targets, who, components)


def degraded(pixels: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """Pictures ``(n, h, w)`` by the fewest principal components of the training part that hold ``ENERGY`` of it."""
    train = pixels["train"]
    flat = {name: part.reshape(len(part), -1).astype(np.float32) for name, part in pixels.items()}
    fitted = PCA(min(64, len(train), flat["train"].shape[1]), random_state=0).fit(flat["train"][:_FITTED])
    kept = int(np.searchsorted(np.cumsum(fitted.explained_variance_ratio_), ENERGY)) + 1
    axes = fitted.components_[:kept]
    found = {}
    for name, part in flat.items():
        back = (part - fitted.mean_) @ axes.T @ axes + fitted.mean_
        found[name] = back.round().clip(0, 255).astype(np.uint8).reshape(pixels[name].shape)
    return found, kept


def paired(given: Digits, seed: int) -> Splits:
    """Pairs of a picture and a clip of the same digit, by seed; no speaker and no picture stands in two splits."""
    tested, calibrated = SPEAKERS[seed]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(given.seen["train"]))
    first = PAIRS["train"]
    pictures = {
        "train": ("train", order[:first]),
        "validation": ("train", order[first : first + PAIRS["validation"]]),
        "test": ("test", np.arange(len(given.seen["test"]))),
    }
    speaks = {
        "train": (given.speakers != tested) & (given.speakers != calibrated),
        "validation": given.speakers == calibrated,
        "test": given.speakers == tested,
    }
    parts = {}
    for name, (part, rows) in pictures.items():
        numbers = given.numbers[part][rows]
        own = {d: np.flatnonzero(speaks[name] & (given.said == d)) for d in np.unique(numbers)}
        clips = np.array([rng.choice(own[d]) for d in numbers])
        parts[name] = Samples(partial(_pair, given, part, rows, clips), numbers.astype(np.int64))
    return complete("pairs of digits", parts, [str(d) for d in range(10)], None, seed)


def spoken(given: Digits, seed: int) -> Splits:
    """The clips alone, with the same speakers in each split."""
    tested, calibrated = SPEAKERS[seed]
    rows = {
        "train": np.flatnonzero((given.speakers != tested) & (given.speakers != calibrated)),
        "validation": np.flatnonzero(given.speakers == calibrated),
        "test": np.flatnonzero(given.speakers == tested),
    }
    parts = {name: given.clips.take(own) for name, own in rows.items()}
    return complete("spoken digits", parts, [str(d) for d in range(10)], None, seed)


def silent(samples: Samples) -> Samples:
    """The same pairs without their clips."""
    return Samples(partial(_alone, samples), samples.targets)


def _pair(given: Digits, part: str, rows: np.ndarray, clips: np.ndarray, i: int) -> Pair:
    return Pair(Image.fromarray(given.seen[part][rows[i]]), given.clips.read(int(clips[i])))


def _alone(samples: Samples, i: int) -> Pair:
    return Pair(samples.read(i).image)
