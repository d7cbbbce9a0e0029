"""How the released ViT, DeiT and Swin checkpoints name their tensors, and how timm and Offramp do."""

from __future__ import annotations

import re

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Rules = list[tuple[str, str]]

_VIT: Rules = [
    (r"^deit\.embeddings\.cls_token$", "cls_token"),
    (r"^deit\.embeddings\.distillation_token$", "dist_token"),
    (r"^deit\.embeddings\.position_embeddings$", "pos_embed"),
    (r"^deit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^deit\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^deit\.layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
]
_SWIN: Rules = [
    (r"^swin\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^swin\.embeddings\.norm\.", "patch_embed.norm."),
    (r"^swin\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.", r"layers.\1.blocks.\2."),
    (r"^swin\.encoder\.layers\.0\.downsample\.", "layers.1.downsample."),
    (r"^swin\.encoder\.layers\.1\.downsample\.", "layers.2.downsample."),
    (r"^swin\.encoder\.layers\.2\.downsample\.", "layers.3.downsample."),
    (r"^swin\.layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
]
_BLOCK: Rules = [
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(attention|self)\.(query|key|value)\.", r".attn.\2."),
    (r"\.attention\.self\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
]
_HIGHWAY = re.compile(r"^(?:deit|swin)\.encoder\.(?:layers\.(\d+)\.)?highway\.(\d+)\.(.+)$")
_UNUSED = re.compile(r"\.pooler\.|relative_position_index$|num_batches_tracked$")
_PART = re.compile(r"\.attn\.(query|key|value)\.")
_LOCAL: Rules = [
    (r"^mlp\.conv1\.0\.", "local.0."),
    (r"^mlp\.conv1\.2\.", "local.2."),
    (r"^mlp\.proj\.", "local.3."),
    (r"^mlp\.proj_bn\.", "local.5."),
]
_GLOBAL: Rules = [(r"^mlp\.(qkv|proj)\.", r"attention.\1.")]
_READOUT: Rules = [
    (r"^classifier\.layernorm\.", "readout.norm."),  # Swin: norm and classifier are one module
    (r"^classifier\.classifier\.", "readout.classifiers.0."),
    (r"^(cls_)?classifier\.", "readout.classifiers.0."),
    (r"^distillation_classifier\.", "readout.classifiers.1."),
]


def is_unused(key: str) -> bool:
    """Whether no model reads a tensor: poolers, tables that are computed, counters of BatchNorms."""
    return _UNUSED.search(key) is not None


def divide(weights: Weights) -> tuple[list[Weights], Weights]:
    """The heads in the order of their places, and everything else; what no model uses is dropped."""
    heads: dict[tuple[int, int], Weights] = {}
    rest: Weights = {}
    for key, value in weights.items():
        if is_unused(key):
            continue
        if match := _HIGHWAY.match(key):
            heads.setdefault((int(match[1] or 0), int(match[2])), {})[match[3]] = value
        else:
            rest[key] = value
    return [heads[k] for k in sorted(heads)], rest


def backbone_names(weights: Weights, swin: bool) -> dict[str, str]:
    """timm's name for each tensor of a backbone, query, key and value still apart; unchanged where no rule knows it."""
    return _renamed(weights, [*(_SWIN if swin else _VIT), *_BLOCK])


def head_names(head: Weights) -> dict[str, str]:
    """Offramp's name for each tensor of a head; unchanged where no rule knows it."""
    # the second local form has no depth-wise convolution: its last convolution stands three places earlier
    last = 6 if "mlp.proj_bn.weight" in head else 3
    local = [*_LOCAL, (r"^mlp\.conv2\.0\.", f"local.{last}."), (r"^mlp\.conv2\.1\.", f"local.{last + 1}.")]
    return _renamed(head, [*(_GLOBAL if "mlp.qkv.weight" in head else local), *_READOUT])


def joined(name: str) -> str:
    """The name of the one layer that timm has for a query, key or value; any other name as it is."""
    return _PART.sub(".attn.qkv.", name)


def join_qkv(weights: Weights) -> Weights:
    """Query, key and value, where all three are there, as the one layer that timm has."""
    parts: dict[str, Weights] = {}
    whole: Weights = {}
    for name, value in weights.items():
        if match := _PART.search(name):
            parts.setdefault(joined(name), {})[match[1]] = value
        else:
            whole[name] = value
    for name, found in parts.items():
        if len(found) == 3 and len({value.shape for value in found.values()}) == 1:
            whole[name] = torch.cat([found["query"], found["key"], found["value"]])
    return whole


def _renamed(weights: Weights, rules: Rules) -> dict[str, str]:
    names = {}
    for key in weights:
        names[key] = key
        for pattern, replacement in rules:
            names[key] = re.sub(pattern, replacement, names[key])
    return names
