"""Images with points on them: heads in a crowd, cells under a microscope."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import KeyPoints

from offramp.errors import DataError, UsageError
from offramp.inputs._decode import in_mode
from offramp.inputs._labelled import Labelled
from offramp.inputs._one import OneTensor
from offramp.inputs.image import ImageInput
from offramp.registry import unknown

_OWN = ("cell", "spread", "crops")
"""What an input has beyond ``ImageInput``."""
_MOST_CROPS = 1024


class Marked(NamedTuple):
    """An image, and what is marked on it.

    Args:
        image: Pillow's.
        points: float32 ``(n, 2)``: x and y in pixels of the image, from its upper left corner; None where nobody knows.
        weights: float32 ``(n,)``: how many things each of them is, 1 where it is one; None likewise.
    """

    image: Image.Image
    points: np.ndarray | None = None
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class PointsInput(OneTensor):
    """Images whose points move with them in training, and are the target there: a map, of which each has one.

    For the tasks ``counting`` and ``density``. A sample is a ``Marked``, or an image of Pillow's, of whose points
    nothing is known. In evaluation its image is all that is read, the whole of it, squeezed to the model's size (our
    choice: what was cut off could not be counted), and the target is the number of points. In training the target is a
    map ``(1, H ÷ cell, W ÷ cell)``: every point gives it a normal distribution of ``spread`` pixels, cut off at the
    edges and then made 1, so that the sum is the number of points that the changed image shows. A point outside its
    image is taken to its edge. Arguments but the last three are those of ``ImageInput``.

    Args:
        cell: pixels of the prepared image to a cell of the map, in each direction.
        spread: standard deviation in pixels of the prepared image.
        crops: rows and columns that an image is cut into (``offramp.inputs.cut``): then each crop is a sample, squeezed
            to the model's size, and an image's number is the sum over its crops.

    Raises:
        UsageError: as ``ImageInput``; a size that cells do not divide, a spread that is not above 0, or no grid of
            crops.
    """

    input_size: tuple[int, int, int]
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = timm.data.IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = timm.data.IMAGENET_DEFAULT_STD
    crop_pct: float = 1.0
    crop_mode: str = "squash"
    cell: int = 8
    spread: float = 4.0
    crops: tuple[int, int] = (1, 1)

    noun: ClassVar[str] = "images"
    suffixes: ClassVar[frozenset[str]] = ImageInput.suffixes

    def __post_init__(self) -> None:
        self.image.pretrained_cfg()  # an image of these values can be made
        if self.cell < 1 or any(side % self.cell for side in self.input_size[1:]):
            raise UsageError(f"cells of {self.cell} pixels do not divide images of {list(self.input_size[1:])}")
        if not 0 < self.spread < math.inf:
            raise UsageError(f"spread is {self.spread}; it is a number of pixels above 0")
        grid = self.crops if isinstance(self.crops, tuple) else ()
        if len(grid) != 2 or not all(isinstance(n, int) and n >= 1 for n in grid):
            raise UsageError(f"crops are rows and columns, whole numbers from 1, not {self.crops}")
        if math.prod(self.crops) > _MOST_CROPS:
            raise UsageError(f"crops are at most {_MOST_CROPS} an image, not {math.prod(self.crops)}")

    @property
    def image(self) -> ImageInput:
        """The input that reads the images alone."""
        return ImageInput(**{name: value for name, value in asdict(self).items() if name not in _OWN})

    @staticmethod
    def read(file: str | Path | BinaryIO, what: str | None = None) -> Marked:
        """The image in a file, of whose points nothing is known. Raises ``DataError``."""
        return Marked(ImageInput.read(file, what))

    @staticmethod
    def marked(sample: Any, points: np.ndarray, weights: np.ndarray) -> Marked:
        """A sample, marked or not, with these points in place of its own."""
        return Marked(_marked(sample).image, points.astype(np.float32), weights.astype(np.float32))

    @classmethod
    def for_backbone(cls, model: Any, size: tuple[int, int, int] | None = None, **options: Any) -> PointsInput:
        """As ``ImageInput``, but for what timm says of cropping: the whole image is read if ``options`` say nothing."""
        whole = {"crop_pct": cls.crop_pct, "crop_mode": cls.crop_mode, **options}
        own = {name: whole.pop(name) for name in _OWN if name in whole}
        if isinstance(own.get("crops"), list):
            own["crops"] = tuple(own["crops"])
        return cls(**ImageInput.for_backbone(model, size, **whole).pretrained_cfg(), **own)

    def pretrained_cfg(self) -> dict[str, Any]:
        """That of the images."""
        return self.image.pretrained_cfg()

    def transform(self, augment: Mapping[str, Any] | None = None) -> Callable[[Marked], Any]:
        """From a ``Marked`` to a float image ``(C, H, W)``; for training to a ``Labelled`` of image and map.

        In training a sample of whose points nothing is known raises ``DataError``: nobody could say how many of them a
        part of it shows. ``augment`` has timm's names: ``scale`` and ``ratio`` of the part that is shown, ``hflip``,
        ``color_jitter``.
        """
        if augment is None:
            return _Whole(self.image.transform())
        return _Moving(self, Augment.of(augment))

    def about(self) -> str:
        """Noun and size, and the crops."""
        crops = "" if self.crops == (1, 1) else f", each one of {self.crops[0]} × {self.crops[1]} crops"
        return super().about() + crops

    def map_of(self, points: Tensor, weights: Tensor) -> Tensor:
        """Points ``(n, 2)`` in pixels of the prepared image to a map ``(1, H ÷ cell, W ÷ cell)`` of all weights."""
        across, down = (
            self._shares(points[:, i], side) for i, side in enumerate((self.input_size[2], self.input_size[1]))
        )
        return torch.einsum("n,nh,nw->hw", weights.double(), down, across)[None].float()

    def _shares(self, places: Tensor, side: int) -> Tensor:
        """Which part of each point lies in each cell along a side, ``(n, cells)``."""
        edges = torch.arange(0, side + 1, self.cell, dtype=torch.float64)
        middles = places.double().clamp(0, side - 1)[:, None] + 0.5
        below = torch.special.ndtr((edges - middles) / self.spread)
        within = below.diff(dim=1)
        return within / within.sum(1, keepdim=True)


@dataclass(frozen=True)
class Augment:
    """What training may change in a marked image.

    Args:
        scale: the smallest and the largest part of the image's area that is shown.
        ratio: the least and the greatest width by height of that part, as a multiple of the image's own.
        hflip: how often left and right are exchanged.
        color_jitter: how much brightness, contrast and saturation vary.

    Raises:
        UsageError: other settings, or values outside what they can be.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.9, 1.1)
    hflip: float = 0.5
    color_jitter: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Augment:
        """From a recipe's values."""
        if foreign := sorted(values.keys() - cls.__dataclass_fields__.keys()):
            raise UsageError(unknown("augmentation of marked images", foreign[0], sorted(cls.__dataclass_fields__)))
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            found = cls(**plain)
            (low, high), (narrow, wide) = found.scale, found.ratio
            fits = 0 < low <= high <= 1 and 0 < narrow <= wide < math.inf and 0 <= found.hflip <= 1
            fits = fits and 0 <= (found.color_jitter or 0) < math.inf
        except (TypeError, ValueError) as error:
            raise UsageError(f"augmentation of marked images: {error}") from error
        if not fits:
            raise UsageError(f"scale lies between 0 and 1, low first, hflip too, ratio above 0; these are {found}")
        return found


def _marked(sample: Any) -> Marked:
    return sample if isinstance(sample, Marked) else Marked(sample)


class _Whole:
    """The image alone; it can be sent to a worker."""

    def __init__(self, inner: Callable[[Image.Image], Tensor]) -> None:
        self.inner = inner

    def __call__(self, sample: Marked | Image.Image) -> Tensor:
        return self.inner(_marked(sample).image)


class _Moving:
    """Part of an image and the points in it, by torchvision's own transforms; it can be sent to a worker."""

    def __init__(self, reads: PointsInput, augment: Augment) -> None:
        self.reads, self.augment = reads, augment
        jitter = augment.color_jitter
        self.inner = v2.Compose(
            [
                *([] if not jitter else [v2.ColorJitter(jitter, jitter, jitter)]),
                v2.RandomHorizontalFlip(augment.hflip),
            ]
        )
        self.normalise = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(reads.mean, reads.std)]
        )

    def __call__(self, sample: Marked | Image.Image) -> Labelled:
        sample = _marked(sample)
        if sample.points is None or sample.weights is None:
            raise DataError("no points are marked on this image: train with input 'image', or on data that has them")
        reads, image = self.reads, in_mode(sample.image, "L" if self.reads.input_size[0] == 1 else "RGB")
        _, height, width = reads.input_size
        last = np.array([image.width - 1, image.height - 1], np.float32)
        inside = torch.from_numpy(sample.points.clip(0, last))
        ratio = tuple(image.width / image.height * times for times in self.augment.ratio)
        show = v2.RandomResizedCrop((height, width), self.augment.scale, ratio, antialias=True)
        points = KeyPoints(inside, canvas_size=(image.height, image.width))
        image, points = self.inner(*show(image, points))
        there = points.as_subclass(Tensor)
        # torchvision scales from the corner of an image and mirrors at the middle of its pixels: a pixel to either side
        shown = ((there > -1) & (there < torch.tensor([width, height]))).all(1)
        prepared: Tensor = self.normalise(image).as_subclass(Tensor)
        return Labelled(prepared, reads.map_of(there[shown], torch.from_numpy(sample.weights)[shown]))
