"""What encodes another modality: a timm model without its classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from offramp._batches import count
from offramp.backbones._maps import input_size
from offramp.errors import UsageError


class SideEncoder(nn.Module):
    """Another modality, as an image of its own, to one side token: what a timm model hands to its classifier.

    Any kind of timm model will do; it is held, not copied.

    Args:
        model: without a classifier (``num_classes=0``).

    Raises:
        UsageError: a model that has a classifier, or gives no vector.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if getattr(model, "num_classes", 0):
            raise UsageError(
                "a side encoder has no classifier: create it with num_classes=0, or call reset_classifier(0)"
            )
        self.model = model
        self.input_size = input_size(model)
        """Channels, height and width that it reads."""
        training = [m for m in model.modules() if m.training]
        model.eval()
        with torch.no_grad():
            found = model(torch.zeros(1, *self.input_size, device=next(model.parameters()).device))
        for m in training:
            m.training = True
        if found.ndim != 2:
            raise UsageError(f"a side encoder gives one vector a sample, and this one gives {tuple(found.shape)}")
        self.width = int(found.shape[1])
        """Of a side token."""

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to side tokens ``(B, 1, width)``.

        In training those that are not ``there`` ``(B, 1)`` are left out, because a batch norm would learn from them;
        zeros stand in their place.
        """
        if not self.training:
            return self.model(x)[:, None]
        rows = (there[:, 0] > 0).nonzero()[:, 0]
        if count(rows) == 0:
            return x.new_zeros(len(x), 1, self.width)
        found = self.model(x[rows])
        return found.new_zeros(len(x), self.width).index_copy(0, rows, found)[:, None]
