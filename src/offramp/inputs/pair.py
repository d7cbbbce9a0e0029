"""An image and a clip of sound that belong together, as sight and sound of one moment."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from offramp._batches import Inputs
from offramp.errors import DataError, UsageError
from offramp.inputs._sound import Clip
from offramp.inputs.image import ImageInput
from offramp.inputs.log_mel import LogMelInput
from offramp.registry import unknown


class Pair(NamedTuple):
    """A sample of the input ``pair``.

    Args:
        image: what is seen.
        clip: what is heard; None where the sound is missing.
    """

    image: Image.Image
    clip: Clip | None = None


@dataclass(frozen=True)
class PairInput:
    """Images with the sound that belongs to them, for a model with a side encoder (2105.09121).

    A sample is a ``Pair``. Prepared it has three parts: the image ``(C, H, W)``, the log-mel image of the clip
    ``(C, n_mels, frames)``, and whether there is a clip, float ``(1,)``, 1 or 0; of a missing one the log-mel image is
    zeros. A sample without sound is a sample like others. Raw the parts are those of the two inputs, and the same
    number.

    The sound of an image file is the file of the same name with the ending of a clip beside it: ``a.wav`` of ``a.jpg``.

    Args:
        image: how images are prepared.
        sound: how clips are.
    """

    image: ImageInput
    sound: LogMelInput

    suffixes: ClassVar[frozenset[str]] = ImageInput.suffixes
    noun: ClassVar[str] = "images with sound"
    crops: ClassVar[tuple[int, int]] = (1, 1)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Image, log-mel image, and whether that is there."""
        return {**self.image.shapes, **self.sound.shapes, "heard": (1,)}

    @property
    def raw_shapes(self) -> Mapping[str, tuple[int | str, ...]]:
        """Pixels, one window of a waveform, and whether that is there."""
        return {**self.image.raw_shapes, **self.sound.raw_shapes, "heard": (1,)}

    @staticmethod
    def read(file: str | Path | BinaryIO, what: str | None = None) -> Pair:
        """The image in a file with the clip beside it, if there is one; of an open file the image alone.

        Raises:
            DataError: an image or a clip that cannot be read; several clips of the same name.
        """
        image = ImageInput.read(file, what)
        return Pair(image, _beside(Path(file)) if isinstance(file, str | Path) else None)

    @staticmethod
    def marked(sample: Any, points: Any, weights: Any) -> Any:
        """The sample itself: points are of no use."""
        return sample

    @classmethod
    def for_backbone(cls, model: Any, size: tuple[int, int, int], **options: Any) -> PairInput:
        """The input of a model for images.

        Args:
            model: a timm model.
            size: channels, height and width that it reads.
            options: ``sound``, those of ``LogMelInput``, ``input_size`` among them; ``image``, those of ``ImageInput``.

        Raises:
            UsageError: others, or values that they cannot have.
        """
        if foreign := sorted(options.keys() - {"image", "sound"}):
            raise UsageError(unknown("part of the input 'pair'", foreign[0], ["image", "sound"]))
        sound = dict(options.get("sound", {}))
        bands = sound.pop("input_size", None)
        if bands is None:
            raise UsageError("the input 'pair' needs the input_size of its sound: channels, mel bands, frames")
        image = ImageInput.for_backbone(model, size, **options.get("image", {}))
        return cls(image, LogMelInput.for_backbone(None, tuple(bands), **sound))

    def pretrained_cfg(self) -> dict[str, Any]:
        """That of the images."""
        return self.image.pretrained_cfg()

    def transform(self, augment: Mapping[str, Any] | None = None) -> Callable[[Any], tuple[Tensor, Tensor, Tensor]]:
        """From a ``Pair``, or an image without sound, to its three parts.

        In training ``augment`` may have ``image`` and ``sound``, what the two inputs take, and ``missing``: the share
        of samples whose sound is left out (modality dropout), so that one exit learns to do with and without it.
        """
        if augment is None:
            return _Transform(self, self.image.transform(), self.sound.transform(), 0.0)
        known = ["image", "missing", "sound"]
        if foreign := sorted(augment.keys() - {*known}):
            raise UsageError(unknown("augmentation of pairs", foreign[0], known))
        missing = augment.get("missing", 0.0)
        if isinstance(missing, bool) or not isinstance(missing, int | float) or not 0 <= missing <= 1:
            raise UsageError(f"missing is {missing!r}; it is the share of samples whose sound is left out")
        image = self.image.transform(augment.get("image"))
        return _Transform(self, image, self.sound.transform(augment.get("sound")), float(missing))

    def raw(self, sample: Any) -> Inputs:
        """Pixels ``(1, height, width, C)``, a window ``(1, samples)`` of silence where there is none, and whether."""
        image, clip = _pair(sample)
        window = torch.zeros(1, self.sound.length) if clip is None else self.sound.raw(clip)
        return self.image.raw(image), window, torch.tensor([[float(clip is not None)]])

    def graph(self) -> tuple[nn.Module, Inputs]:
        """That of both. Raises ``UsageError`` where either cannot be part of a file."""
        (sight, image), (hearing, clip) = self.image.graph(), self.sound.graph()
        assert isinstance(image, Tensor)
        assert isinstance(clip, Tensor)
        return _Graph(sight, hearing), (image, clip, torch.ones(len(image), 1))

    def example(self, n: int, generator: torch.Generator | None = None, raw: bool = False) -> Inputs:
        """Noise of both, three of four times with sound."""
        heard = (torch.rand(n, 1, generator=generator) < 0.75).float()
        return self.image.example(n, generator, raw), self.sound.example(n, generator, raw), heard

    def check(self, x: Inputs, raw: bool = False) -> None:
        """Raise ``DataError`` unless it has the three parts, each as its input makes it."""
        if isinstance(x, Tensor) or len(x) != 3:
            found = "one tensor" if isinstance(x, Tensor) else f"{len(x)} parts"
            raise DataError(f"{self.noun} are three parts, image, clip and whether it is there, and this is {found}")
        self.image.check(x[0], raw)
        self.sound.check(x[1], raw)
        n = x[0].shape[0]
        if x[2].shape != (n, 1) or x[1].shape[0] != n:
            shapes = ", ".join(str(tuple(part.shape)) for part in x)
            raise DataError(f"the parts of {self.noun} belong together, (batch, 1) the last; these are {shapes}")

    def converted(self, x: Inputs, other: Any) -> Inputs:
        """The batch itself for an equal input; of one for images or for clips the part that it reads."""
        if other == self:
            return x
        assert isinstance(x, tuple)
        if isinstance(other, LogMelInput):
            return self.sound.converted(x[1], other)
        return self.image.converted(x[0], other)

    def about(self) -> str:
        """Both."""
        return f"{self.image.about()}; with {self.sound.about()}"


def _pair(sample: Any) -> Pair:
    """A sample that may be an image alone, or a plain tuple of both."""
    return Pair(*sample) if isinstance(sample, tuple) else Pair(sample)


def _beside(file: Path) -> Clip | None:
    """The clip of the same name, whatever the case of its ending."""
    beside = file.parent.glob(f"{glob.escape(file.stem)}.*")
    found = sorted(other for other in beside if other.suffix.lower() in LogMelInput.suffixes)
    if len(found) > 1:
        raise DataError(f"{file} has more than one clip beside it: {', '.join(other.name for other in found)}")
    return LogMelInput.read(found[0]) if found else None


class _Transform:
    """From a pair to its parts; it can be sent to a worker."""

    def __init__(self, reads: PairInput, image: Callable[..., Any], sound: Callable[..., Any], missing: float) -> None:
        self.reads, self.image, self.sound, self.missing = reads, image, sound, missing

    def __call__(self, sample: Any) -> tuple[Tensor, Tensor, Tensor]:
        image, clip = _pair(sample)
        if self.missing and float(torch.rand(())) < self.missing:
            clip = None
        heard = torch.zeros(self.reads.sound.input_size) if clip is None else self.sound(clip)
        return self.image(image), heard, torch.tensor([float(clip is not None)])


class _Graph(nn.Module):
    """Both transforms in a file; of a missing clip nothing is read, whatever its window holds."""

    def __init__(self, sight: nn.Module, hearing: nn.Module) -> None:
        super().__init__()
        self.sight, self.hearing = sight, hearing

    def forward(self, h: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Raw parts to prepared ones."""
        image, window, heard = h
        (seen,), (mel,) = self.sight((image,)), self.hearing((window,))
        return seen, mel * (heard > 0)[:, :, None, None], heard
