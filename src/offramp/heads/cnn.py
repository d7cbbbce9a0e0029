"""CNN-Ignore-EE, CNN-Add-EE and CNN-Project-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from offramp.heads._grid import to_map
from offramp.heads._perceptron import ACTIVATION, DROPOUT, HIDDEN, perceptron
from offramp.heads._reading import read_summary
from offramp.types import Tap


class CNNIgnore(nn.Module):
    """The patches as a map through one convolution; the class token is ignored (2106.15183).

    Built as the authors' published notebooks have it: 3 × 3 convolution, ELU, 2 × 2 max pooling, flattening, and a
    perceptron. Flattening ties the head to the size of the grid. Adding the mean of ``side`` tokens to every patch is
    our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        filters: of the convolution.
        hidden: units of each hidden layer of the perceptron; none for one linear layer.
        activation: of the perceptron, ``elu``, ``gelu`` or ``relu``.
        dropout: of the perceptron in training.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        filters: int = 16,
        hidden: Sequence[int] = HIDDEN,
        activation: str = ACTIVATION,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.tap = tap
        self.features, width = _convolution(tap.dim, tap, filters)
        self.classifier = perceptron(width, num_outputs, hidden, activation, dropout)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = to_map(tokens, self.tap)
        if side is not None:
            x = x + side.mean(1)[:, :, None, None]
        return self.classifier(self.features(x))


class CNNAdd(CNNIgnore):
    """As ``cnn-ignore``, with the class token added to every patch (2106.15183).

    Where the backbone's classifier reads no prefix token, the mean of the patches takes its place (our choice), as does
    the mean of class and distillation token where it reads both. Arguments as there.
    """

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        summary = read_summary(tokens, self.tap, side)
        return self.classifier(self.features(to_map(tokens, self.tap) + summary[:, :, None, None]))


class CNNProject(nn.Module):
    """As ``cnn-ignore``, with the class token joined to every patch (2106.15183).

    In the authors' published notebooks the convolution, which reads 2·dim channels, is the projection:
    ``project="conv"``. ``project="token"`` maps each pair from 2·dim to dim with a linear layer and GELU first, the
    readout of DPT, at many times the cost.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        project: ``conv`` or ``token``.
        filters: of the convolution.
        hidden: units of each hidden layer of the perceptron; none for one linear layer.
        activation: of the perceptron, ``elu``, ``gelu`` or ``relu``.
        dropout: of the perceptron in training.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        project: Literal["conv", "token"] = "conv",
        filters: int = 16,
        hidden: Sequence[int] = HIDDEN,
        activation: str = ACTIVATION,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        if project not in ("token", "conv"):
            raise TypeError(f"project is {project!r}; it is 'conv' or 'token'")
        self.tap = tap
        by_token = project == "token"
        self.project = nn.Sequential(nn.Linear(2 * tap.dim, tap.dim), nn.GELU()) if by_token else None
        self.features, width = _convolution(tap.dim if by_token else 2 * tap.dim, tap, filters)
        self.classifier = perceptron(width, num_outputs, hidden, activation, dropout)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        patches = tokens[:, self.tap.prefix :]
        summary = read_summary(tokens, self.tap, side)[:, None].expand_as(patches)
        pairs = torch.cat([patches, summary], dim=2)
        if self.project is not None:
            pairs = self.project(pairs)
        x = pairs.transpose(1, 2).reshape(pairs.shape[0], pairs.shape[2], *self.tap.grid)
        return self.classifier(self.features(x))


def _convolution(channels: int, tap: Tap, filters: int) -> tuple[nn.Module, int]:
    """From a map to a flat vector, and how long that is."""
    pool = (min(2, tap.grid[0]), min(2, tap.grid[1]))
    layers = [nn.Conv2d(channels, filters, 3, padding=1), nn.ELU(), nn.MaxPool2d(pool), nn.Flatten()]
    return nn.Sequential(*layers), filters * (tap.grid[0] // pool[0]) * (tap.grid[1] // pool[1])
