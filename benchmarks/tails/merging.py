"""Token merging as ToMe has it (2210.09461), written from its formulas: a rival that needs no training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.cost.macs import count_macs


class Merging(nn.Module):
    """A timm ViT whose blocks each merge ``r`` tokens into the ones that are most like them.

    Between attention and perceptron the tokens are dealt into two sets in turn; each token of the first is compared, by
    the cosine of its key, with all of the second, and the ``r`` that are most like one go into it, as a mean weighted
    by how many patches each stands for. Attention adds the logarithm of that number to its keys. The class token is in
    the first set and stays. Keys are computed once more for the comparison, as timm's attention
    keeps its own: our choice.

    Args:
        model: a plain timm ViT with a class token.
        r: tokens that each block merges, while more than two are left.
    """

    def __init__(self, model: Any, r: int) -> None:
        super().__init__()
        self.model, self.r = model, r

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to logits."""
        model = self.model
        x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
        size = torch.ones_like(x[..., :1])
        for block in model.blocks:
            given = block.norm1(x)
            x = x + block.ls1(block.attn(given, attn_mask=size.log()[:, None, None, :, 0]))
            r = min(self.r, (x.shape[1] - 1) // 2)
            if r > 0:
                x, size = merge(x, size, _keys(block.attn, given), r)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        found: Tensor = model.forward_head(model.norm(x))
        return found


def merge(x: Tensor, size: Tensor, keys: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """The tokens ``(B, N − r, d)`` after ``r`` were merged, and for how many patches each stands ``(B, N − r, 1)``.

    Args:
        x: tokens ``(B, N, d)``, the class token first.
        size: for how many patches each stands, ``(B, N, 1)``.
        keys: by which tokens are compared, ``(B, N, k)``.
        r: how many go.
    """
    keys = functional.normalize(keys, dim=-1)
    likeness = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
    best, partner = likeness.max(-1)
    order = torch.cat([torch.full_like(best[:, :1], -2.0), best[:, 1:]], 1).argsort(1, descending=True)
    going, staying = order[:, :r], order[:, r:].sort(1).values
    into = partner.gather(1, going)
    whole = torch.cat([x * size, size], -1)
    first, second = whole[:, ::2], whole[:, 1::2]

    def wide(rows: Tensor) -> Tensor:
        return rows[..., None].expand(-1, -1, whole.shape[-1])

    second = second.scatter_add(1, wide(into), first.gather(1, wide(going)))
    left = torch.cat([first.gather(1, wide(staying)), second], 1)
    return left[..., :-1] / left[..., -1:], left[..., -1:]


def macs(network: nn.Module, x: Tensor) -> float:
    """Multiply-adds of one sample."""
    return count_macs(network, x)[0] / len(x)


def _keys(attention: Any, x: Tensor) -> Tensor:
    """The mean over heads of each token's keys, ``(B, N, head_dim)``."""
    width = attention.attn_dim
    bias = None if attention.qkv.bias is None else attention.qkv.bias[width : 2 * width]
    keys = functional.linear(x, attention.qkv.weight[width : 2 * width], bias)
    return keys.unflatten(-1, (attention.num_heads, attention.head_dim)).mean(2)
