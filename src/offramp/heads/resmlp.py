"""ResMLP-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from timm.models.mlp_mixer import Affine, ResBlock
from torch import Tensor, nn

from offramp.types import Tap


class ResMLP(nn.Module):
    """One ResMLP layer over the patches, mean over patches, and a linear layer (2106.15183); no prefix tokens.

    The layer is that of ResMLP (2105.03404), by timm: x + g₁·Linear over patches(Affine(x)), then
    x + g₂·MLP(Affine(x)), so it mixes across patches; a port of the exit paper that leaves this out was not followed.
    The affine map before pooling is ResMLP's own. Adding the mean of ``side`` tokens to every patch is our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        mlp_ratio: the hidden width of the perceptron as a multiple of the token width.
        init_values: where the two gains g start; ResMLP starts deep networks near 0, one layer can start higher.
    """

    def __init__(self, tap: Tap, num_outputs: int, mlp_ratio: float = 4.0, init_values: float = 0.1) -> None:
        super().__init__()
        self.tap = tap
        self.block = ResBlock(tap.dim, tap.tokens - tap.prefix, mlp_ratio, init_values=init_values)
        self.norm = Affine(tap.dim)
        self.classifier = nn.Linear(tap.dim, num_outputs)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = tokens[:, self.tap.prefix :]
        if side is not None:
            x = x + side.mean(1, keepdim=True)
        return self.classifier(self.norm(self.block(x)).mean(1))
