"""Resizing, cropping and normalising inside the graph, as timm does it with Pillow."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from offramp.errors import UsageError

Tensors = tuple[Tensor, ...]

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


class Resize(nn.Module):
    """Pictures to what a model reads: shorter side to size ÷ crop_pct with anti-aliasing, centre crop, normalise.

    Pillow's resampling is a weighted mean in each direction, rounded to bytes after each. Here it is two products with
    a matrix of these weights, of which only the rows inside the crop are made: runtimes differ in what they make of
    ONNX's own resizing (OpenVINO ignores its anti-aliasing), and agree on products. Made for pictures of a few
    megapixels: the work grows with their size.

    Args:
        input_size: channels, height, width of what a model reads; the other arguments are those of ``ImageInput``.
        interpolation: ``bilinear`` or ``bicubic``.
        mean: of each channel.
        std: of each channel.
        crop_pct: the share of the resized image's side that is kept.
        crop_mode: ``center``.

    Raises:
        UsageError: a configuration with another crop, interpolation or a size that is not square.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        input_size: tuple[int, int, int],
        interpolation: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        crop_pct: float,
        crop_mode: str,
    ) -> None:
        super().__init__()
        _, height, width = input_size
        if height != width or interpolation not in _SUPPORT or crop_mode != "center":
            raise UsageError(
                "preprocessing in the graph is for square images, bilinear or bicubic, with a centre crop; this model "
                f"has {height} × {width}, {interpolation}, {crop_mode}"
            )
        self.size, self.support = height, _SUPPORT[interpolation]
        self.resized = math.floor(height / crop_pct)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pictures: Tensors) -> Tensors:
        """Bytes ``(B, H, W, C)``, any H and W, to ``(B, C, size, size)``."""
        x = pictures[0]
        rows, columns = torch.arange(x.shape[1]), torch.arange(x.shape[2])
        height, width = rows[-1] + 1, columns[-1] + 1
        short = torch.minimum(height, width)
        down, across = self._weights(rows, height, short), self._weights(columns, width, short)
        y = x.permute(0, 3, 1, 2).float()
        y = _to_bytes(down @ _to_bytes(y @ across.T))
        return ((y / 255 - self.mean) / self.std,)

    def _weights(self, places: Tensor, length: Tensor, short: Tensor) -> Tensor:
        """What each pixel of the crop takes of each pixel of a side, ``(size, length)``; all in one direction.

        Args:
            places: 0 … length − 1.
            length: of the side, in pixels.
            short: the length of the shorter side.
        """
        resized = torch.div(self.resized * length, short, rounding_mode="trunc")
        first = ((resized - self.size).float() / 2).round()
        scale = length.float() / resized.float()
        centres = (torch.arange(self.size) + first + 0.5) * scale
        distance = (places.float() + 0.5 - centres[:, None]).abs() / scale.clamp(min=1.0)
        weights = _triangle(distance) if self.support == 1 else _cubic(distance)
        return weights / weights.sum(1, keepdim=True)


def _to_bytes(x: Tensor) -> Tensor:
    """Rounded as Pillow does it, halves up."""
    return (x + 0.5).floor().clamp(0, 255)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic with a = −½, as Pillow has it."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
