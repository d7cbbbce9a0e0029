"""Images, prepared by timm's own transforms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from offramp._batches import Inputs
from offramp.errors import DataError, UsageError
from offramp.inputs._decode import in_mode, open_image
from offramp.inputs._one import OneTensor
from offramp.inputs._resize import Resize

_LARGEST = 2**26
"""Values of an image, channels times pixels."""


@dataclass(frozen=True)
class ImageInput(OneTensor):
    """An image in RGB or, with one channel, in grey: timm's data configuration of a model, under timm's names.

    A sample is an image of Pillow's. Prepared it is float ``(C, H, W)``, resized, cropped and normalised; raw it is
    uint8 ``(height, width, C)`` of any size.

    Args:
        input_size: channels, height, width.
        interpolation: ``bilinear``, ``bicubic``, … as timm calls it.
        mean: of each channel, for values from 0 to 1.
        std: of each channel, the same.
        crop_pct: the share of the resized image's side that is kept.
        crop_mode: ``center``, ``squash`` or ``border``.

    Raises:
        UsageError: values of which timm can make no transform, or an image past 2²⁶ values.
    """

    input_size: tuple[int, int, int]
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = timm.data.IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = timm.data.IMAGENET_DEFAULT_STD
    crop_pct: float = timm.data.DEFAULT_CROP_PCT
    crop_mode: str = "center"

    suffixes: ClassVar[frozenset[str]] = frozenset(
        {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
    )
    noun: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        size = self.input_size
        if len(size) != 3 or min(size) < 1 or math.prod(size) > _LARGEST:
            raise UsageError(f"images of the size {list(size)}: that is channels, height, width, at most {_LARGEST}")
        if len(self.mean) != size[0] or len(self.std) != size[0]:
            raise UsageError(f"images of {size[0]} channels have one mean and std each, not {self.mean} and {self.std}")
        numbers = (*self.mean, *self.std, self.crop_pct)
        if not all(map(math.isfinite, numbers)) or min(*self.std, self.crop_pct) <= 0:
            raise UsageError("mean, std and crop_pct are finite numbers, std and crop_pct above 0")
        try:
            self.transform()
        except Exception as error:  # timm raises whatever odd values make it raise
            raise UsageError(f"timm makes no transform of {asdict(self)}: {error}") from error

    @property
    def raw_shapes(self) -> Mapping[str, tuple[int | str, ...]]:
        """Height and width may be any."""
        return {"images": ("height", "width", self.input_size[0])}

    @staticmethod
    def read(file: str | Path | BinaryIO, what: str | None = None) -> Image.Image:
        """The image in a file, decoded; the first, where there are several. Raises ``DataError``."""
        return open_image(str(file) if isinstance(file, Path) else file, what)

    @classmethod
    def for_backbone(cls, model: Any, size: tuple[int, int, int] | None = None, **options: Any) -> ImageInput:
        """timm's data configuration of a model, with the size and channels that it was really built for.

        Args:
            model: a timm model.
            size: channels, height, width; what timm says if not given.
            options: what to change in the configuration.
        """
        config = dict(timm.data.resolve_model_data_config(model))
        config["input_size"] = tuple(config["input_size"] if size is None else size)
        channels = config["input_size"][0]
        for key in ("mean", "std"):  # those of three colours, for a model that was built for another number of channels
            if len(config[key]) != channels:
                config[key] = (sum(config[key]) / len(config[key]),) * channels
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in {**config, **options}.items()}
        try:
            return cls(**plain)
        except TypeError as error:
            raise UsageError(f"input 'image': {error}") from error

    def pretrained_cfg(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def transform(self, augment: Mapping[str, Any] | None = None) -> Callable[[Image.Image], Tensor]:
        """``timm.data.create_transform``, for training with the arguments in ``augment``; float ``(C, H, W)``."""
        extra = {} if augment is None else {"is_training": True, **augment}
        return _Transform(self._mode, timm.data.create_transform(**asdict(self), **extra))

    def raw(self, sample: Image.Image) -> Tensor:
        """The pixels as they are, uint8 ``(1, height, width, C)``."""
        pixels = torch.from_numpy(np.array(in_mode(sample, self._mode)))
        return pixels.reshape(1, *pixels.shape[:2], -1)

    def graph(self) -> tuple[nn.Module, Tensor]:
        """For square images, bilinear or bicubic, with a centre crop. Raises ``UsageError`` for others."""
        return Resize(**asdict(self)), torch.zeros(3, 31, 37, self.input_size[0], dtype=torch.uint8)

    def example(self, n: int, generator: torch.Generator | None = None, raw: bool = False) -> Tensor:
        """Normal noise ``(n, C, H, W)``; raw, bytes of the same size ``(n, H, W, C)``."""
        x = torch.randn(n, *self.input_size, generator=generator)
        return (x * 64 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous() if raw else x

    def check(self, x: Inputs, raw: bool = False) -> None:
        """Raise ``DataError`` unless it is ``(B, C, H, W)``, or raw uint8 ``(B, height, width, C)``."""
        if not raw:
            super().check(x)
            return
        channels = self.input_size[0]
        if not isinstance(x, Tensor) or x.dtype != torch.uint8 or x.ndim != 4 or x.shape[3] != channels:
            found = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" if isinstance(x, Tensor) else "several"
            expected = f"uint8 pictures of shape (batch, height, width, {channels})"
            raise DataError(f"the model takes {expected}, these are {found}")

    def converted(self, x: Inputs, other: Any) -> Tensor:
        """Images ``(B, C, H, W)`` normalised and resized as ``other`` has it."""
        if not isinstance(x, Tensor) or not isinstance(other, ImageInput) or len(other.mean) != len(self.mean):
            raise UsageError(f"{self.noun} of {len(self.mean)} channels cannot be made what {other!r} is")
        mean, std, new_mean, new_std = (
            x.new_tensor(values)[:, None, None] for values in (self.mean, self.std, other.mean, other.std)
        )
        if not (torch.equal(mean, new_mean) and torch.equal(std, new_std)):
            x = (x * std + mean - new_mean) / new_std
        size = other.input_size[1:]
        if tuple(x.shape[2:]) != size:
            x = functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        return x

    def about(self) -> str:
        """Size and normalisation."""
        return f"{super().about()}, mean {list(self.mean)}, standard deviation {list(self.std)}"

    @property
    def _mode(self) -> str:
        return "L" if self.input_size[0] == 1 else "RGB"


class _Transform:
    """timm's transform after the image's mode is what the model's channels ask for; it can be sent to a worker."""

    def __init__(self, mode: str, inner: Callable[[Image.Image], Tensor]) -> None:
        self.mode, self.inner = mode, inner

    def __call__(self, image: Image.Image) -> Tensor:
        return self.inner(in_mode(image, self.mode))
