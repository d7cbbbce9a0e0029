"""CNN-Ignore-EE, CNN-Add-EE and CNN-Project-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from offramp.heads._grid import to_map
from offramp.heads._reading import read_summary
from offramp.types import Tap


class _ConvStack(nn.Module):
    """Convolution, ELU, pooling, flattening, and a classifier with or without a hidden layer: a map to an output."""

    def __init__(self, channels: int, tap: Tap, num_outputs: int, filters: int, hidden: int | None) -> None:
        super().__init__()
        pool = (min(2, tap.grid[0]), min(2, tap.grid[1]))
        self.features = nn.Sequential(
            nn.Conv2d(channels, filters, 3, padding=1), nn.ELU(), nn.MaxPool2d(pool), nn.Flatten()
        )
        width = filters * (tap.grid[0] // pool[0]) * (tap.grid[1] // pool[1])
        if hidden is None:
            self.classifier: nn.Module = nn.Linear(width, num_outputs)
        else:
            layers = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.GELU()]
            self.classifier = nn.Sequential(*layers, nn.Linear(width, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class CNNIgnore(nn.Module):
    """The patch tokens as a map through one convolution; the class token is ignored (2106.15183).

    Two independent ports agree on the map of patches, 16 filters of 3 × 3, ELU, 2 × 2 max pooling and flattening; they
    disagree on what follows: one linear layer (the default), or a perceptron (``hidden=3136`` at 14 × 14 patches).
    Flattening ties the head to the size of the grid. Adding the mean of ``side`` tokens to every patch is our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        filters: of the convolution.
        hidden: the width of a hidden layer between the flat map and one more of the flat map's width; None for none.
    """

    def __init__(self, tap: Tap, num_outputs: int, filters: int = 16, hidden: int | None = None) -> None:
        super().__init__()
        self.tap = tap
        self.stack = _ConvStack(tap.dim, tap, num_outputs, filters, hidden)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = to_map(tokens, self.tap)
        if side is not None:
            x = x + side.mean(1)[:, :, None, None]
        return self.stack(x)


class CNNAdd(nn.Module):
    """As ``cnn-ignore``, with the class token added to every patch (2106.15183).

    Where the backbone's classifier reads no prefix token, the mean of the patches takes its place (our choice), as does
    the mean of class and distillation token where it reads both.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        filters: of the convolution.
        hidden: see ``cnn-ignore``.
    """

    def __init__(self, tap: Tap, num_outputs: int, filters: int = 16, hidden: int | None = None) -> None:
        super().__init__()
        self.tap = tap
        self.stack = _ConvStack(tap.dim, tap, num_outputs, filters, hidden)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        summary = read_summary(tokens, self.tap, side)
        return self.stack(to_map(tokens, self.tap) + summary[:, :, None, None])


class CNNProject(nn.Module):
    """As ``cnn-ignore``, with the class token joined to every patch and projected (2106.15183).

    Sources agree that class token and patch are concatenated and disagree on who projects. ``project="token"``, the
    default because of the head's name, maps each pair from 2·dim to dim with a linear layer and GELU (the readout of
    DPT); ``project="conv"`` leaves it to the convolution, which then reads 2·dim channels.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        project: ``token`` or ``conv``.
        filters: of the convolution.
        hidden: see ``cnn-ignore``.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        project: Literal["token", "conv"] = "token",
        filters: int = 16,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        if project not in ("token", "conv"):
            raise TypeError(f"project is {project!r}; it is 'token' or 'conv'")
        self.tap = tap
        self.project = nn.Sequential(nn.Linear(2 * tap.dim, tap.dim), nn.GELU()) if project == "token" else None
        channels = tap.dim if project == "token" else 2 * tap.dim
        self.stack = _ConvStack(channels, tap, num_outputs, filters, hidden)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        patches = tokens[:, self.tap.prefix :]
        summary = read_summary(tokens, self.tap, side)[:, None].expand_as(patches)
        pairs = torch.cat([patches, summary], dim=2)
        if self.project is not None:
            pairs = self.project(pairs)
        return self.stack(pairs.transpose(1, 2).reshape(pairs.shape[0], pairs.shape[2], *self.tap.grid))
