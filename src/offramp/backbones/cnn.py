"""Convolutional backbones, block by block: ResNet, DenseNet, Inception-v3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timm.models.densenet import DenseNet
from timm.models.inception_v3 import InceptionV3
from timm.models.resnet import ResNet
from torch import Tensor, nn

from offramp.backbones._maps import input_size, map_taps, map_tokens


class ResNetBackbone(nn.Module):
    """A timm ``ResNet`` in pieces: one step a residual block; the state is a map ``(B, C, h, w)``.

    Args:
        model: the timm model; it is held, not copied.
    """

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.model: Any = model
        self.names = tuple(f"layer{s}.{b}" for s in range(1, 5) for b in range(len(getattr(model, f"layer{s}"))))
        # a tuple, here and below, so that torch does not register what the model holds already
        stages: list[Any] = [model.layer1, model.layer2, model.layer3, model.layer4]
        self.steps = tuple(block for stage in stages for block in stage)
        self.taps = map_taps(model, self.stem, self.steps, input_size(model))

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether the model is of timm's own class."""
        return type(model) is ResNet

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the first map."""
        m = self.model
        return m.maxpool(m.act1(m.bn1(m.conv1(x))))

    def final(self, h: Tensor) -> Tensor:
        """The last map to the output of timm's own classifier."""
        return self.model.forward_head(h)

    def tokens(self, h: Tensor, tap: Any) -> Tensor:
        """The map as tokens, ``(B, h·w, C)``."""
        return map_tokens(h)


class DenseNetBackbone(nn.Module):
    """A timm ``DenseNet`` in pieces: one step a dense layer, which appends its channels to the map ``(B, C, h, w)``.

    The transition between two dense blocks belongs to the first layer behind it.

    Args:
        model: the timm model; it is held, not copied.
    """

    def __init__(self, model: DenseNet) -> None:
        super().__init__()
        self.model: Any = model
        names = [n for n, _ in model.features.named_children()]
        self.first = names.index("denseblock1")
        self.names = tuple(
            f"features.{block}.{layer}"
            for block in names
            if block.startswith("denseblock")
            for layer in getattr(model.features, block)
        )
        self.steps = tuple(_dense_layers(list(self.model.features.named_children())[self.first :]))
        self.taps = map_taps(model, self.stem, self.steps, input_size(model))

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether the model is of timm's own class."""
        return type(model) is DenseNet

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the first map."""
        return self.model.features[: self.first](x)

    def final(self, h: Tensor) -> Tensor:
        """The last map to the output of timm's own classifier."""
        return self.model.forward_head(self.model.features.norm5(h))

    def tokens(self, h: Tensor, tap: Any) -> Tensor:
        """The map as tokens, ``(B, h·w, C)``."""
        return map_tokens(h)


def _dense_layers(parts: list[tuple[str, Any]]) -> Iterator[Callable[[Tensor], Tensor]]:
    transition = None
    for name, part in parts:
        if name.startswith("transition"):
            transition = part
        elif name.startswith("denseblock"):
            for layer in part.values():
                yield partial(_grow, transition, layer)
                transition = None


def _grow(transition: nn.Module | None, layer: nn.Module, h: Tensor) -> Tensor:
    """One dense layer: what it makes is appended to what there is."""
    h = h if transition is None else transition(h)
    return torch.cat([h, layer(h)], 1)


class InceptionBackbone(nn.Module):
    """A timm ``InceptionV3`` in pieces: one step a mixed block; the state is a map ``(B, C, h, w)``.

    Args:
        model: the timm model; it is held, not copied.
    """

    def __init__(self, model: InceptionV3) -> None:
        super().__init__()
        self.model: Any = model
        self.names = tuple(n for n, _ in model.named_children() if n.startswith("Mixed_"))
        self.steps = tuple(getattr(model, name) for name in self.names)
        self.taps = map_taps(model, self.stem, self.steps, input_size(model))

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether the model is of timm's own class and has no auxiliary classifier, which would change its output."""
        return type(model) is InceptionV3 and not model.aux_logits

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the first map."""
        m = self.model
        x = m.Pool1(m.Conv2d_2b_3x3(m.Conv2d_2a_3x3(m.Conv2d_1a_3x3(x))))
        return m.Pool2(m.Conv2d_4a_3x3(m.Conv2d_3b_1x1(x)))

    def final(self, h: Tensor) -> Tensor:
        """The last map to the output of timm's own classifier."""
        return self.model.forward_head(h)

    def tokens(self, h: Tensor, tap: Any) -> Tensor:
        """The map as tokens, ``(B, h·w, C)``."""
        return map_tokens(h)
