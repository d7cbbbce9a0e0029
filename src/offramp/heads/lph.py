"""LGViT's local perception head (2308.00255)."""

from __future__ import annotations

from torch import Tensor, nn

from offramp.heads._grid import to_map, to_tokens
from offramp.heads._lgvit import Readout
from offramp.types import Tap


class LPH(nn.Module):
    """Local perception: 1 × 1, depth-wise 3 × 3 and 1 × 1 convolution over the patch map, with a residual (2308.00255).

    As the released code computes it: each convolution but the last is followed by GELU and then BatchNorm, the last by
    BatchNorm alone, and the patches are added to the result. (The paper's figure shows GELU after the last convolution
    as well, and no residual.) ``depthwise=False`` is its second form, for the deeper of the local heads, without the
    3 × 3 convolution. Adding the mean of ``side`` tokens to the pooled features is our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        depthwise: whether the depth-wise convolution is there.
        norm_eps: the eps of the LayerNorm before the readout, on a backbone without class token (Swin).
    """

    def __init__(self, tap: Tap, num_outputs: int, depthwise: bool = True, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.tap = tap
        layers: list[nn.Module] = [nn.Conv2d(tap.dim, tap.dim, 1), nn.GELU(), nn.BatchNorm2d(tap.dim)]
        if depthwise:
            local = nn.Conv2d(tap.dim, tap.dim, 3, padding=1, groups=tap.dim)
            layers += [local, nn.GELU(), nn.BatchNorm2d(tap.dim)]
        self.local = nn.Sequential(*layers, nn.Conv2d(tap.dim, tap.dim, 1), nn.BatchNorm2d(tap.dim))
        self.readout = Readout(tap, num_outputs, norm_eps)

    def features(self, tokens: Tensor) -> Tensor:
        """``(B, prefix + h·w, dim)`` to the head's tokens, ``(B, h·w, dim)``."""
        return to_tokens(self.local(to_map(tokens, self.tap))) + tokens[:, self.tap.prefix :]

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        return self.readout(self.features(tokens), tokens, side)
