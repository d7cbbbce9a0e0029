"""The readout that LGViT's two heads share (2308.00255, as its released code computes it)."""

from __future__ import annotations

from torch import Tensor, nn

from offramp.types import Tap


class Readout(nn.Module):
    """Tokens of a head to an output.

    With a class token (ViT): the mean of the head's tokens plus the raw class token of that block, one linear layer.
    With class and distillation token (DeiT): the same for each of the two with a layer of its own, averaged.
    With neither (Swin): LayerNorm, mean over tokens, one linear layer.

    Args:
        tap: where the head reads.
        num_outputs: the number of outputs.
        norm_eps: the eps of the LayerNorm.
    """

    def __init__(self, tap: Tap, num_outputs: int, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(tap.dim, eps=norm_eps) if tap.summary == 0 else nn.Identity()
        self.classifiers = nn.ModuleList(nn.Linear(tap.dim, num_outputs) for _ in range(max(tap.summary, 1)))

    def forward(self, features: Tensor, tokens: Tensor, side: Tensor | None) -> Tensor:
        """Features of the head ``(B, n, dim)`` and the tokens it read to ``(B, num_outputs)``."""
        pooled = self.norm(features).mean(1)
        if side is not None:
            pooled = pooled + side.mean(1)
        if len(self.classifiers) == 1 and not isinstance(self.norm, nn.Identity):
            return self.classifiers[0](pooled)
        outputs = [classify(pooled + tokens[:, i]) for i, classify in enumerate(self.classifiers)]
        return sum(outputs[1:], outputs[0]) / len(outputs)
