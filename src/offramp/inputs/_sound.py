"""A clip of sound, from a file or from bytes: read whole and of a bounded length, or one sentence that says why not."""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple

import numpy as np

from offramp.errors import DataError, UsageError
from offramp.inputs._decode import reason

MAX_SAMPLES = 2**26
"""Samples of the longest clip that is read, all its channels together: 35 minutes at 16 kHz in stereo."""


class Clip(NamedTuple):
    """Sound as it was recorded.

    Args:
        waveform: one channel, float32 ``(samples,)``, full scale from −1 to 1.
        rate: samples a second.
    """

    waveform: np.ndarray
    rate: int


def read_clip(file: str | BinaryIO, what: str | None = None) -> Clip:
    """The clip in a file (wav, flac, ogg, opus, mp3, aiff, at any rate), decoded; several channels become their mean.

    Args:
        file: a path, or a file that is open.
        what: what to call it in a sentence; the path if not given.

    Raises:
        UsageError: no library to read sound with is installed.
        DataError: a file that is missing, damaged, no sound, empty, past ``MAX_SAMPLES``, or with samples that are not
            finite numbers.
    """
    soundfile: Any = library("soundfile")
    what = str(file) if what is None else what
    try:
        with soundfile.SoundFile(file) as sound:
            channels, rate = sound.channels, sound.samplerate
            # what a header says of the length may be wrong: no more than the limit is decoded
            samples = sound.read(MAX_SAMPLES // channels + 1, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{what} could not be read as sound: {error.error_string.rstrip('.')}") from error
    except Exception as error:  # a damaged file makes a decoder raise whatever it stumbles over
        raise DataError(f"{what} could not be read as sound: {reason(error)}") from error
    if samples.size > MAX_SAMPLES:
        raise DataError(f"{what} is longer than any clip that is read: {MAX_SAMPLES // 10**6} million samples")
    if not len(samples):
        raise DataError(f"{what} holds no sound: it has no samples")
    if not np.isfinite(samples).all():
        raise DataError(f"{what} has samples that are not finite numbers")
    return Clip(np.ascontiguousarray(samples.mean(axis=1)), rate)


def library(name: str) -> Any:
    """A library of the extra ``audio``. Raises ``UsageError`` where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"sound needs {name}: pip install 'offramp[audio]'") from error
