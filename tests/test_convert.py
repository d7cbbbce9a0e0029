"""Checkpoints of LGViT's authors, written here in their form from models of our own."""

import json
import re

import pytest
import timm
import torch
from helpers import run_cli
from safetensors.torch import save_file

import offramp
from offramp import ArtifactError, layouts
from offramp.convert import lgvit

CONFIG = {
    "image_size": 64,
    "num_channels": 3,
    "id2label": {str(i): f"class {i}" for i in range(5)},
    "exit_strategy": "confidence",
    "threshold": 0.8,
}
VIT = {
    **CONFIG,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "position_exits": "[4,5,6,7,8,9,10,11]",
}
SWIN = {
    **CONFIG,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 16,
    "depths": [2, 2, 18, 2],
    "num_heads": [1, 2, 4, 8],
    "mlp_ratio": 2.0,
    "position_exits": [[], [2], [3, 6, 9, 12, 15, 18], [1]],
}


def build(form):
    torch.manual_seed(0)
    common = {"img_size": 64, "num_classes": 5, "mlp_ratio": 2.0}
    if form == "swin":
        backbone = timm.create_model(
            "swin_tiny_patch4_window7_224",
            patch_size=2,
            window_size=4,
            embed_dim=16,
            depths=(2, 2, 18, 2),
            num_heads=(1, 2, 4, 8),
            **common,
        )
    else:
        name = "deit_tiny_distilled_patch16_224" if form == "deit" else "vit_tiny_patch16_224"
        backbone = timm.create_model(name, embed_dim=32, num_heads=2, **common)
    model = offramp.attach(backbone, layouts.lgvit(backbone))
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if "running_var" in name:
                value.uniform_(0.5, 2)
            elif value.is_floating_point() and "attn_mask" not in name:
                value.normal_(std=0.1)
    return model.eval()


def their_name(key, form):
    """The key of a head or backbone parameter as the authors' release writes it."""
    root = "swin" if form == "swin" else "deit"
    if key.startswith("heads."):
        _, i, rest = key.split(".", 2)
        where = f"{root}.encoder.highway.{i}."
        if form == "swin":
            stage, inside = [(1, 0), *((2, j) for j in range(6)), (3, 0)][int(i)]
            where = f"swin.encoder.layers.{stage}.highway.{inside}."
        rest = rest.replace("readout.norm.", "layernorm.").replace("attention.", "mlp.")
        first = "cls_classifier" if form == "deit" else "classifier"
        rest = rest.replace("readout.classifiers.0.", first + ".")
        rest = rest.replace("readout.classifiers.1.", "distillation_classifier.")
        last = 3 if int(i) in (2, 3) else 6
        for number, name in ((0, "conv1.0"), (2, "conv1.2"), (last, "conv2.0"), (last + 1, "conv2.1")):
            rest = re.sub(rf"^local\.{number}\.", f"mlp.{name}.", rest)
        return where + re.sub(r"^local\.3\.", "mlp.proj.", re.sub(r"^local\.5\.", "mlp.proj_bn.", rest))
    key = key.removeprefix("backbone.model.")
    pairs = [
        (r"^cls_token", "deit.embeddings.cls_token"),
        (r"^dist_token", "deit.embeddings.distillation_token"),
        (r"^pos_embed", "deit.embeddings.position_embeddings"),
        (r"^patch_embed\.proj", f"{root}.embeddings.patch_embeddings.projection"),
        (r"^patch_embed\.norm", "swin.embeddings.norm"),
        (r"^norm\.", f"{root}.layernorm."),
        (r"^head\.fc\.", "classifier."),
        (r"^head\.", "cls_classifier." if form == "deit" else "classifier."),
        (r"^head_dist\.", "distillation_classifier."),
        (r"^blocks\.(\d+)\.", r"deit.encoder.layer.\1."),
        (r"^layers\.(\d+)\.blocks\.(\d+)\.", r"swin.encoder.layers.\1.blocks.\2."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.attn\.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
        (r"\.attn\.relative_position_index", ".attention.self.relative_position_index"),
    ]
    if match := re.match(r"^layers\.(\d)\.downsample\.", key):
        return key.replace(match[0], f"swin.encoder.layers.{int(match[1]) - 1}.downsample.")
    for pattern, replacement in pairs:
        key = re.sub(pattern, replacement, key)
    return key


def write(folder, form, model, kind="safetensors", **config):
    folder.mkdir()
    weights = {}
    for key, value in model.state_dict().items():
        if key.endswith("attn_mask"):
            continue
        name = their_name(key, form)
        if ".attn.qkv." in name:
            inner = "self" if form == "swin" else "attention"
            for part, chunk in zip(("query", "key", "value"), value.chunk(3), strict=True):
                weights[name.replace(".attn.qkv.", f".attention.{inner}.{part}.")] = chunk.clone()
        else:
            weights[name] = value.clone()
    weights["deit.pooler.dense.weight" if form == "vit" else f"{form}.pooler.dense.weight"] = torch.zeros(2, 2)
    if kind == "safetensors":
        save_file(weights, folder / "model.safetensors")
    else:
        torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({**(SWIN if form == "swin" else VIT), **config}))
    return weights


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("form", ["vit", "deit", "swin"])
def test_a_checkpoint_becomes_the_same_model(tmp_path, form, kind):
    model = build(form)
    write(tmp_path / "c", form, model, kind)
    converted, policy = lgvit(tmp_path / "c")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pairs = list(zip(model(x), converted(x), strict=True))
    assert len(pairs) == 9
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    assert converted.classes[3] == "class 3"
    assert policy.thresholds == (0.8,) * 8
    assert converted.after[:-1] == ((4, 7, 10, 13, 16, 19, 22, 23) if form == "swin" else (4, 5, 6, 7, 8, 9, 10, 11))


def test_preprocessing_is_that_of_the_checkpoint(tmp_path):
    write(tmp_path / "c", "vit", build("vit"))
    assert lgvit(tmp_path / "c")[0].data_config["crop_pct"] == 1.0
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "c" / "preprocessor_config.json").write_text(json.dumps(values))
    config = lgvit(tmp_path / "c")[0].data_config
    assert (config["mean"], config["std"], config["input_size"]) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (3, 64, 64))


def test_the_command_writes_an_artifact(tmp_path, monkeypatch, capsys):
    model = build("vit")
    write(tmp_path / "c", "vit", model)
    code, out, _ = run_cli(monkeypatch, capsys, "convert", "lgvit", tmp_path / "c", tmp_path / "m", "--json")
    assert code == 0
    assert json.loads(out)["exits"] == [4, 5, 6, 7, 8, 9, 10, 11]
    again, _ = offramp.load(tmp_path / "m")
    x = torch.randn(1, 3, 64, 64)
    assert torch.allclose(again(x)[3], model(x)[3], atol=1e-5)


def test_keys_that_are_not_known_are_named(tmp_path, monkeypatch, capsys):
    weights = write(tmp_path / "c", "vit", build("vit"))
    weights["deit.encoder.extra.weight"] = torch.zeros(1)
    save_file(weights, tmp_path / "c" / "model.safetensors")
    with pytest.warns(UserWarning, match=r"left out: deit\.encoder\.extra\.weight$"):
        lgvit(tmp_path / "c")
    code, _, err = run_cli(monkeypatch, capsys, "convert", "lgvit", tmp_path / "c", tmp_path / "m")
    assert code == 0
    assert "deit.encoder.extra.weight" in err
    del weights["deit.layernorm.bias"]
    save_file(weights, tmp_path / "c" / "model.safetensors")
    with pytest.raises(ArtifactError) as caught:
        lgvit(tmp_path / "c")
    assert str(caught.value).endswith("missing: backbone.model.norm.bias; not known: deit.encoder.extra.weight")


def test_a_configuration_is_never_evaluated(tmp_path):
    write(tmp_path / "c", "vit", build("vit"), position_exits="__import__('os').getcwd()")
    with pytest.raises(ArtifactError, match="does not describe an LGViT model"):
        lgvit(tmp_path / "c")


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    write(tmp_path / "c", "vit", build("vit"), "bin")
    torch.save({"a": Evil()}, tmp_path / "c" / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="not opened"):
        lgvit(tmp_path / "c")


def test_nothing_there(tmp_path):
    with pytest.raises(ArtifactError, match=r"config\.json could not be read"):
        lgvit(tmp_path)
