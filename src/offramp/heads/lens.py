"""The lens: a head that answers through the backbone's own classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from offramp.errors import UsageError
from offramp.heads._reading import read_summary
from offramp.registry import HEADS
from offramp.types import Tap

_SMALL = 0.01
"""Times what the last layer of a correction begins with; from zero itself the layers before it could not learn."""


class Lens(nn.Module):
    """Learns what the later blocks would add to the summary of the tokens; the backbone's classifier does the rest.

    The answer is ``classifier(norm(summary + correction(tokens)))``. Norm and classifier are copies of the backbone's
    and never learn; they are taken when the head is attached, and again where heads begin to learn on a backbone that
    stays frozen. The correction begins close to zero. So a class of which the head saw no sample can still be named,
    and few samples are enough. That is the tuned lens of 2303.08112, which reads language models with an affine
    correction; another head as correction, for what the summary does not hold yet, is our choice, and so is ``linear``
    with its norm in place of the affine one.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs, that of the backbone's classifier.
        of: the head that computes the correction, ``(B, dim)``.
        options: of that head.

    Raises:
        UsageError: on attaching, where the backbone's classifier is not one linear layer as wide as a token here.
    """

    weight: Tensor
    bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor

    def __init__(
        self, tap: Tap, num_outputs: int, of: str = "linear", options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.tap, self.eps = tap, 1e-6
        self.shape = (num_outputs, tap.dim)
        self.normalises = True
        self.correction: nn.Module = HEADS.resolve(of)(tap, tap.dim, **(options or {}))
        *_, last = (m for m in self.correction.modules() if isinstance(m, nn.Linear))
        with torch.no_grad():
            for learned in last.parameters():
                learned.mul_(_SMALL)
        like = nn.Linear(tap.dim, num_outputs)  # until the backbone's is there
        for name, value in (
            ("weight", like.weight.detach()),
            ("bias", like.bias.detach()),
            ("norm_weight", torch.ones(tap.dim)),
            ("norm_bias", torch.zeros(tap.dim)),
        ):
            self.register_buffer(name, value)

    def read_backbone(self, model: Any) -> None:
        """Copy norm and classifier of a timm model. Raises ``UsageError`` where they do not fit."""
        classifier = model.get_classifier()
        if not isinstance(classifier, nn.Linear) or classifier.weight.shape != self.shape:
            found = tuple(classifier.weight.shape) if isinstance(classifier, nn.Linear) else type(classifier).__name__
            raise UsageError(
                f"head 'lens' after block {self.tap.after} answers through the backbone's classifier: a linear layer "
                f"{self.shape} is needed, not {found}"
            )
        norms = (getattr(model, name, None) for name in ("fc_norm", "norm"))
        norm = next((m for m in norms if isinstance(m, nn.LayerNorm)), None)
        self.normalises = norm is not None
        copied: dict[str, Tensor | None] = {"weight": classifier.weight, "bias": classifier.bias}
        if norm is not None:
            self.eps = norm.eps
            copied |= {"norm_weight": norm.weight, "norm_bias": norm.bias}
        with torch.no_grad():
            for name, value in copied.items():
                own = getattr(self, name)
                if own is not None:  # shared by paths, one of them keeps the weights
                    own.zero_() if value is None else own.copy_(value)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = read_summary(tokens, self.tap, side) + self.correction(tokens, side)
        if self.normalises:
            x = F.layer_norm(x, (self.tap.dim,), self.norm_weight, self.norm_bias, self.eps)
        return F.linear(x, self.weight, self.bias)
