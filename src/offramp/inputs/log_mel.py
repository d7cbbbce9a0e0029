"""Sound as an image: the logarithm of its mel spectrogram."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from offramp._batches import Inputs
from offramp.errors import DataError, UsageError
from offramp.inputs._one import OneTensor
from offramp.inputs._sound import Clip, library, read_clip
from offramp.inputs._spectrogram import FLOOR, Spectrogram
from offramp.registry import unknown

_LONGEST = 2**22
"""Samples of the longest window: four minutes at 16 kHz."""
_LARGEST = 2**26
"""Values of an image, channels times bands times frames: a description alone shall not ask for more."""
_LARGEST_FILTER = 2**24
"""Numbers in torchaudio's filter from one rate to another: their product, after what divides both. 44,100 Hz to 16,000
takes 70,560; 44,101 Hz would take 700 million."""
_FEWEST_BENDS, _MOST_BENDS = 3, 6
"""Of a curve over the bands, its ends counted."""
_EDGE = 16
"""Samples of the lower rate that a filter reaches to each side; torchaudio's reaches to 7."""


@dataclass(frozen=True)
class LogMelInput(OneTensor):
    """Clips of sound as log-mel images: torchaudio's ``MelSpectrogram``, logarithm, normalisation.

    A sample is a ``Clip``: a waveform and its rate. Prepared it is float ``(C, n_mels, frames)``, low notes first, the
    same in every channel, so that backbones for images in colour read it too. Of a longer clip the middle is taken, a
    shorter one has silence around it, and one of silence alone is a clip like others. Raw it is float32 ``(samples,)``,
    one window at ``sample_rate``.

    Args:
        input_size: channels, mel bands, frames. The step from frame to frame follows from the frames: they span the
            window.
        sample_rate: in hertz; clips of another rate are resampled.
        seconds: of a window.
        n_fft: samples of a frame, which has Hann's window.
        f_min: the lowest frequency of the bands, in hertz.
        f_max: the highest; half the rate if not given.
        mean: of the logarithms (natural, of power + 10⁻⁶); the default is that of spoken words.
        std: the same.

    Raises:
        UsageError: values of which no spectrogram can be made.
    """

    input_size: tuple[int, int, int]
    sample_rate: int = 16_000
    seconds: float = 1.0
    n_fft: int = 512
    f_min: float = 20.0
    f_max: float | None = None
    mean: float = -7.0
    std: float = 5.0

    suffixes: ClassVar[frozenset[str]] = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"})
    noun: ClassVar[str] = "clips"

    def __post_init__(self) -> None:
        if len(self.input_size) != 3 or min(self.input_size) < 1 or math.prod(self.input_size) > _LARGEST:
            size = list(self.input_size)
            raise UsageError(f"log-mel images of the size {size}: that is channels, bands, frames, at most {_LARGEST}")
        if not all(isinstance(whole, int) for whole in (*self.input_size, self.sample_rate, self.n_fft)):
            raise UsageError("sizes, sample_rate and n_fft of a log-mel input are whole numbers")
        numbers = (self.sample_rate, self.seconds, self.n_fft, self.f_min, self.highest, self.mean, self.std)
        if not all(map(math.isfinite, numbers)) or min(self.sample_rate, self.seconds, self.n_fft, self.std) <= 0:
            raise UsageError("a log-mel input has finite numbers, with sample_rate, seconds, n_fft and std above 0")
        if not self.n_fft <= self.length <= _LONGEST:
            raise UsageError(
                f"a window of {self.seconds} s at {self.sample_rate} Hz has {self.length} samples; it has one frame "
                f"of {self.n_fft} samples or more, and at most {_LONGEST}"
            )
        if self.length < self.input_size[2]:
            raise UsageError(f"{self.input_size[2]} frames of a window of {self.length} samples")
        if not 0 <= self.f_min < self.highest <= self.sample_rate / 2:
            raise UsageError(
                f"bands from {self.f_min} to {self.highest} Hz; at {self.sample_rate} Hz they lie between 0 and "
                f"{self.sample_rate / 2}"
            )
        if self.n_fft // 2 + 1 < self.input_size[1]:
            raise UsageError(f"{self.input_size[1]} mel bands of {self.n_fft // 2 + 1} frequencies: raise n_fft")

    @property
    def length(self) -> int:
        """Samples of a window."""
        return round(self.sample_rate * self.seconds)

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return self.length // max(self.input_size[2] - 1, 1)

    @property
    def highest(self) -> float:
        """The highest frequency of the bands, in hertz."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    @property
    def raw_shapes(self) -> Mapping[str, tuple[int | str, ...]]:
        """One window."""
        return {self.noun: (self.length,)}

    @staticmethod
    def read(file: str | Path | BinaryIO, what: str | None = None) -> Clip:
        """The clip in a file, decoded and mixed down. Raises ``DataError``, and ``UsageError`` without a library."""
        return read_clip(str(file) if isinstance(file, Path) else file, what)

    @classmethod
    def for_backbone(cls, model: Any, size: tuple[int, int, int], **options: Any) -> LogMelInput:
        """The size that a model reads; what else there is comes from ``options``."""
        try:
            return cls(size, **options)
        except TypeError as error:
            raise UsageError(f"input 'log-mel': {error}") from error

    def transform(self, augment: Mapping[str, Any] | None = None) -> Callable[[Clip], Tensor]:
        """From a clip to a float image ``(C, n_mels, frames)``; see ``Augment`` for what training may change in it."""
        return _Transform(self, None if augment is None else Augment.of(augment))

    def raw(self, sample: Clip) -> Tensor:
        """One window at the model's rate, float32 ``(1, samples)``."""
        return self._window(self._resampled(_clip(sample)))[None]

    def graph(self) -> tuple[nn.Module, Inputs]:
        """From windows ``(B, samples)``; resampling and cutting are left to whoever calls the file."""
        bounds = self.f_min, self.highest
        made = Spectrogram(self.input_size, self.sample_rate, self.n_fft, self.hop, bounds, self.mean, self.std)
        return made, torch.zeros(3, self.length)

    def example(self, n: int, generator: torch.Generator | None = None, raw: bool = False) -> Tensor:
        """Normal noise ``(n, C, n_mels, frames)``; raw, quiet noise ``(n, samples)``."""
        if raw:
            return 0.1 * torch.randn(n, self.length, generator=generator)
        return torch.randn(n, *self.input_size, generator=generator)

    def check(self, x: Inputs, raw: bool = False) -> None:
        """Raise ``DataError`` unless it is ``(B, C, n_mels, frames)``, or raw float32 ``(B, samples)``."""
        if not raw:
            super().check(x)
        elif not isinstance(x, Tensor) or x.dtype != torch.float32 or x.ndim != 2 or x.shape[1] != self.length:
            found = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" if isinstance(x, Tensor) else "several"
            raise DataError(f"the model takes float32 waveforms of shape (batch, {self.length}), these are {found}")

    def about(self) -> str:
        """Size, window and rate."""
        return f"{super().about()}, log-mel, of {self.seconds} s at {self.sample_rate} Hz"

    def _resampled(self, clip: Clip, slack: float = 0.0) -> Tensor:
        """A clip at ``sample_rate``: no more of it than a window, and ``slack`` seconds on both sides, can need."""
        wave, ratio = torch.from_numpy(clip.waveform), clip.rate / self.sample_rate
        if ratio == 1:
            return wave
        common = math.gcd(clip.rate, self.sample_rate)
        if clip.rate // common * (self.sample_rate // common) > _LARGEST_FILTER:
            rates = f"{clip.rate} Hz cannot be resampled to {self.sample_rate} Hz"
            raise DataError(f"clips of {rates}: save them at another rate")
        most = math.ceil((self.seconds + 2 * slack) * clip.rate) + 2 * math.ceil(_EDGE * max(ratio, 1))
        start = max((len(wave) - most) // 2, 0)
        return library("torchaudio").functional.resample(wave[start : start + most], clip.rate, self.sample_rate)

    def _window(self, wave: Tensor, shift: int = 0) -> Tensor:
        """The middle of a waveform, ``shift`` samples later; silence where it has none."""
        start = (len(wave) - self.length) // 2 + shift
        kept = wave[max(start, 0) : max(start + self.length, 0)]
        before = min(max(-start, 0), self.length - len(kept))
        return nn.functional.pad(kept, (before, self.length - len(kept) - before))


def _clip(sample: Any) -> Clip:
    """The sample itself. Raises ``DataError`` where it is none: some sources hold images whatever is asked of them."""
    if not isinstance(sample, Clip):
        raise DataError(f"the input 'log-mel' reads clips of sound, and this sample is {type(sample).__name__}")
    return sample


@dataclass(frozen=True)
class Augment:
    """What training may change in a clip; nothing at all if nothing is said.

    Args:
        shift: the window lies up to so many seconds before or behind the middle.
        gain: a clip is made louder or quieter by up to so many decibels: microphones differ.
        curve: low, middle and high notes are made louder or quieter by up to so many decibels each, along a line
            between them, as FilterAugment does (2110.03282): rooms and microphones differ in that too.
        noise: decibels from the weakest to the strongest signal-to-noise ratio of background noise, ``[low, high]``.
        noise_folder: clips to take the noise from, such as Speech Commands' ``_background_noise_``; white noise if not
            given.
        noise_share: the share of the clips that gets noise.
        bands: SpecAugment (1904.08779): the widest stripe of mel bands that is blanked.
        frames: the same of frames.
        stripes: how many stripes of each.
        speeds: a clip is played at one of these, 1 as it is; its pitch and its length change with it (Ko et al. 2015).
            They are rounded so that its rate stays a multiple of 100 Hz.

    Raises:
        UsageError: other settings, or values outside what they can be.
    """

    shift: float = 0.0
    gain: float = 0.0
    curve: float = 0.0
    noise: tuple[float, float] | None = None
    noise_folder: str | None = None
    noise_share: float = 0.5
    bands: int = 0
    frames: int = 0
    stripes: int = 1
    speeds: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Augment:
        """From a recipe's values."""
        if foreign := sorted(values.keys() - cls.__dataclass_fields__.keys()):
            raise UsageError(unknown("augmentation of sound", foreign[0], sorted(cls.__dataclass_fields__)))
        try:
            found: Augment = TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise UsageError(f"augmentation of sound: {where}: {fault['msg']}") from error
        numbers = (found.shift, found.gain, found.curve, found.noise_share, found.bands, found.frames, found.stripes)
        if not all(0 <= number < math.inf for number in numbers) or found.noise_share > 1:
            raise UsageError(f"augmentation of sound has no values below 0, and a share of at most 1: {asdict(found)}")
        if found.noise is not None and not -math.inf < found.noise[0] <= found.noise[1] < math.inf:
            raise UsageError(f"noise is [low, high] in decibels, not {list(found.noise)}")
        if not all(0.5 <= speed <= 2 for speed in found.speeds):
            raise UsageError(f"speeds lie between 0.5 and 2, and these are {list(found.speeds)}")
        return found


class _Transform:
    """From a clip to an image; it can be sent to a worker.

    Args:
        reads: the input.
        augment: what to change at random; nothing if None.
    """

    def __init__(self, reads: LogMelInput, augment: Augment | None) -> None:
        self.reads, self.augment = reads, augment
        self.noises = _noises(reads, augment.noise_folder) if augment and augment.noise else []

    def __call__(self, sample: Clip) -> Tensor:
        clip = _clip(sample)
        if self.augment is None:
            return self._image(self.reads._window(self.reads._resampled(clip)))
        wave = self.reads._resampled(self._sped(clip), self.augment.shift)
        most = round(self.augment.shift * self.reads.sample_rate)
        wave = self._noisy(self.reads._window(wave, _up_to(2 * most) - most))
        if self.augment.gain:
            decibels = self.augment.gain * (2 * float(torch.rand(())) - 1)
            wave = library("torchaudio").functional.gain(wave, decibels)
        return self._striped(self._image(wave, self._curve()))

    @cached_property
    def mel(self) -> Any:
        """torchaudio's own transform."""
        reads = self.reads
        return library("torchaudio").transforms.MelSpectrogram(
            reads.sample_rate, reads.n_fft, None, reads.hop, reads.f_min, reads.highest, n_mels=reads.input_size[1]
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "mel"}

    def _image(self, wave: Tensor, curve: Tensor | float = 1.0) -> Tensor:
        reads = self.reads
        power = self.mel(wave)[:, : reads.input_size[2]] * curve
        return ((power + FLOOR).log() - reads.mean).div(reads.std).expand(reads.input_size).contiguous()

    def _sped(self, clip: Clip) -> Clip:
        """A clip that says of itself that it has another rate is played at another speed."""
        assert self.augment is not None
        if not self.augment.speeds:
            return clip
        speed = self.augment.speeds[_up_to(len(self.augment.speeds) - 1)]
        return clip if speed == 1 else clip._replace(rate=max(round(clip.rate * speed / 100), 1) * 100)

    def _noisy(self, wave: Tensor) -> Tensor:
        assert self.augment is not None
        if self.augment.noise is None or float(torch.rand(())) >= self.augment.noise_share or not wave.any():
            return wave
        noise = torch.randn_like(wave)
        if self.noises:
            found = self.noises[_up_to(len(self.noises) - 1)]
            room = len(found) - len(wave)
            noise = self.reads._window(found, _up_to(room) - room // 2 if room > 0 else 0)
            if not noise.any():
                return wave
        low, high = self.augment.noise
        decibels = low + (high - low) * torch.rand(())
        return library("torchaudio").functional.add_noise(wave, noise, decibels)

    def _curve(self) -> Tensor | float:
        """What the power of each mel band is multiplied by, ``(n_mels, 1)``."""
        assert self.augment is not None
        if not self.augment.curve:
            return 1.0
        bends = _FEWEST_BENDS + _up_to(_MOST_BENDS - _FEWEST_BENDS)
        decibels = self.augment.curve * (2 * torch.rand(1, 1, bends) - 1)
        line = nn.functional.interpolate(decibels, size=self.reads.input_size[1], mode="linear", align_corners=True)
        return torch.pow(10, line[0, 0] / 10)[:, None]

    def _striped(self, image: Tensor) -> Tensor:
        assert self.augment is not None
        masks, plain = library("torchaudio").transforms, image[None]
        for _ in range(self.augment.stripes):
            for mask, width in ((masks.FrequencyMasking, self.augment.bands), (masks.TimeMasking, self.augment.frames)):
                plain = mask(width)(plain) if width else plain
        return plain[0]


def _up_to(most: int) -> int:
    """A whole number from 0 to ``most``, by torch's generator."""
    return int(torch.randint(most + 1, ()))


def _noises(reads: LogMelInput, folder: str | None) -> list[Tensor]:
    if folder is None:
        return []
    files = sorted(f for f in Path(folder).glob("*") if f.suffix.lower() in reads.suffixes)
    if not files:
        raise DataError(f"the folder {folder} holds no clips of noise")
    return [reads._resampled(reads.read(file), slack=_LONGEST) for file in files]
