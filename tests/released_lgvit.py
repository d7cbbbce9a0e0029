"""LGViT in its authors' form without Offramp: backbones by Hugging Face, heads as the released code computes them.

What is written here is a checkpoint, and what it answers is computed from torch's and transformers' own modules alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

CLASSES = 5
SIZE = 64
PLACES = {2: [4, 11], 4: [4, 6, 9, 11], 6: [4, 5, 7, 8, 10, 11], 8: [4, 5, 6, 7, 8, 9, 10, 11]}
HEADS = {
    2: ["local", 2],
    4: ["local", "pointwise", 2, 3],
    6: ["local", "pointwise", 2, 2, 3, 3],
    8: ["local", "local", "pointwise", "pointwise", 2, 2, 3, 3],
}
"""Local heads with and without depth-wise convolution; a number is the step at which a global head picks patches."""
SWIN_PLACES = [[], [2], [3, 6, 9, 12, 15, 18], [1]]
SWIN_HEADS = ["local", "local", "pointwise", "pointwise", 1, 1, 2, 2]
SWIN_WIDTHS = [32, *[64] * 6, 128]


class Local(nn.Module):
    def __init__(self, dim: int, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim))
        if depthwise:
            self.proj, self.proj_bn = nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.BatchNorm2d(dim)
        self.conv2 = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim))
        self.depthwise = depthwise

    def forward(self, patches: Tensor) -> Tensor:
        x = self.conv1(grid(patches))
        if self.depthwise:
            x = self.proj_bn(nn.functional.gelu(self.proj(x)))
        return self.conv2(x).flatten(2).mT + patches


class Global(nn.Module):
    def __init__(self, dim: int, step: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.step = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim), step

    def forward(self, patches: Tensor) -> Tensor:
        x = grid(patches)[:, :, :: self.step, :: self.step].flatten(2).mT
        q, k, v = (part.unflatten(2, (8, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class SwinReadout(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.layernorm, self.classifier = nn.LayerNorm(dim, eps=eps), nn.Linear(dim, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classifier(self.layernorm(tokens).mean(1))


class Highway(nn.Module):
    def __init__(self, form: str, kind: str | int, dim: int, eps: float) -> None:
        super().__init__()
        self.form = form
        self.mlp = Global(dim, kind) if isinstance(kind, int) else Local(dim, kind == "local")
        if form == "deit":
            self.cls_classifier, self.distillation_classifier = nn.Linear(dim, CLASSES), nn.Linear(dim, CLASSES)
        else:
            self.classifier = SwinReadout(dim, eps) if form == "swin" else nn.Linear(dim, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        prefix = {"vit": 1, "deit": 2, "swin": 0}[self.form]
        features = self.mlp(tokens[:, prefix:])
        if self.form == "swin":
            return self.classifier(features)
        first = features.mean(1) + tokens[:, 0]
        if self.form == "vit":
            return self.classifier(first)
        second = features.mean(1) + tokens[:, 1]
        return (self.cls_classifier(first) + self.distillation_classifier(second)) / 2


def grid(patches: Tensor) -> Tensor:
    side = int(patches.shape[1] ** 0.5)
    return patches.mT.unflatten(2, (side, side))


class Released:
    """A model of random, non-trivial weights: what it answers at each exit, and its checkpoint."""

    def __init__(self, form: str, exits: int = 8, eps: float = 1e-2) -> None:
        import transformers

        torch.manual_seed(0)
        self.form, swin = form, form == "swin"
        common = {"image_size": SIZE, "num_labels": CLASSES, "layer_norm_eps": eps}
        if swin:
            sizes = {"patch_size": 2, "window_size": 4, "embed_dim": 16, "mlp_ratio": 2.0}
            depths = {"depths": [2, 2, 18, 2], "num_heads": [1, 2, 4, 8]}
            config = transformers.SwinConfig(**sizes, **depths, **common)
            self.backbone = transformers.SwinForImageClassification(config)
            blocks = [block for layer in self.backbone.swin.encoder.layers for block in layer.blocks]
            places, heads, widths = [4, 7, 10, 13, 16, 19, 22, 23], SWIN_HEADS, SWIN_WIDTHS
        else:
            sizes = {"patch_size": 16, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
            if form == "deit":
                config = transformers.DeiTConfig(**sizes, **common)
                self.backbone = transformers.DeiTForImageClassificationWithTeacher(config)
            else:
                config = transformers.ViTConfig(**sizes, **common)
                self.backbone = transformers.ViTForImageClassification(config)
            blocks = list(getattr(self.backbone, form).layers)
            places, heads, widths = PLACES[exits], HEADS[exits], [32] * exits
        self.highways = nn.ModuleList(Highway(form, *rest, eps) for rest in zip(heads, widths, strict=True))
        for module in (self.backbone, self.highways):
            module.eval()
            with torch.no_grad():
                for name, value in [*module.named_parameters(), *module.named_buffers()]:
                    if "running_var" in name:
                        value.uniform_(0.5, 2)
                    elif value.is_floating_point():
                        value.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.1)
        self.seen: list[Tensor] = []
        for place in places:
            blocks[place - 1].register_forward_hook(lambda _module, _given, out: self.seen.append(tokens(out)))
        self.config = {
            **{k: v for k, v in config.to_dict().items() if k not in ("label2id", "dtype")},
            "id2label": {str(i): f"class {i}" for i in range(CLASSES)},
            "exit_strategy": "confidence",
            "threshold": 0.8,
            "position_exits": SWIN_PLACES if swin else json.dumps(places),
        }

    @torch.no_grad()
    def outputs(self, x: Tensor) -> list[Tensor]:
        """What every exit answers, the final exit last."""
        self.seen.clear()
        final = self.backbone(x).logits
        return [*(head(seen) for head, seen in zip(self.highways, self.seen, strict=True)), final]

    def weights(self) -> dict[str, Tensor]:
        """All tensors, named as by transformers 4.26, from which the released code derives."""
        root = "swin" if self.form == "swin" else "deit"
        named = {name_in_4_26(key, root): value.clone() for key, value in self.backbone.state_dict().items()}
        for i, head in enumerate(self.highways):
            where = f"deit.encoder.highway.{i}."
            if root == "swin":
                stage, inside = [(1, 0), *((2, j) for j in range(6)), (3, 0)][i]
                where = f"swin.encoder.layers.{stage}.highway.{inside}."
            named |= {where + key: value.clone() for key, value in head.state_dict().items()}
        # tensors that 4.26 saved and no model reads
        named[f"{root}.pooler.dense.weight"] = torch.zeros(2, 2)
        if root == "swin":
            index = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"
            named[index] = torch.zeros(16, 16, dtype=torch.int64)
        return named

    def write(self, folder: Path, kind: str = "safetensors", **config) -> dict[str, Tensor]:
        """The checkpoint as a folder; its tensors."""
        folder.mkdir()
        weights = self.weights()
        if kind == "safetensors":
            save_file(weights, folder / "model.safetensors")
        else:
            torch.save(weights, folder / "pytorch_model.bin")
        (folder / "config.json").write_text(json.dumps({**self.config, **config}))
        return weights


def tokens(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def name_in_4_26(key: str, root: str) -> str:
    """The key of transformers 4.26 for one of transformers 5: attention and perceptron were renamed in between."""
    inner = "self" if root == "swin" else "attention"
    for new, old in (
        (r"^vit\.", "deit."),  # the authors' ViT is a DeiT without distillation token
        (r"^deit\.layers\.", "deit.encoder.layer."),
        (r"\.attention\.q_proj\.", f".attention.{inner}.query."),
        (r"\.attention\.k_proj\.", f".attention.{inner}.key."),
        (r"\.attention\.v_proj\.", f".attention.{inner}.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.attention\.relative_position_bias\.", f".attention.{inner}."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ):
        key = re.sub(new, old, key)
    return key
