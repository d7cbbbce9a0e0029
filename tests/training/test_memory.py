"""Options for large models: steps in parts, activations computed again, rates that fall with depth, trackers."""

import itertools

import pytest
from helpers import squares, tiny_model, tiny_vit

import offramp
from offramp import Exit, UsageError

pytestmark = pytest.mark.slow


SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 16, "num_heads": (1, 2, 4, 8)}


def fit(folder, model=None, **settings):
    model = tiny_model() if model is None else model
    defaults = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu"}
    offramp.train(model, squares(64), folder=folder, **{**defaults, **settings})
    return model


def distance(a, b):
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_step_in_parts_is_the_step(tmp_path):
    whole, moved = fit(tmp_path / "a", optimizer="sgd"), tiny_model()
    for accumulate in (2, 5, 16):
        parts = fit(tmp_path / str(accumulate), optimizer="sgd", accumulate=accumulate)
        assert distance(parts, whole) < 1e-5 < distance(moved, whole)
    with pytest.raises(UsageError, match="a batch of 16 cannot be computed in 17 parts"):
        fit(tmp_path / "b", accumulate=17)


def test_a_run_in_parts_is_another_run(tmp_path):
    fit(tmp_path)
    with pytest.raises(UsageError, match="accumulate 1, not 2"):
        fit(tmp_path, accumulate=2)


def test_activations_computed_again_are_the_same_ones(tmp_path):
    def dropping():
        return tiny_model(proj_drop_rate=0.1, drop_path_rate=0.1)

    kept = fit(tmp_path / "a", dropping())
    again = dropping()
    calls = []
    again.backbone.steps[0].register_forward_pre_hook(lambda *_: calls.append(1))
    fit(tmp_path / "b", again, activation_checkpointing=True)
    assert distance(kept, again) == 0
    assert len(calls) == 2 * 2 * 4, "each block ran once on the way there and once on the way back"
    assert not again.grad_checkpointing


def test_learning_rates_fall_from_block_to_block():
    import timm.optim

    model = offramp.attach(tiny_vit(), [Exit(1), Exit(3)])
    optimizer = timm.optim.create_optimizer_v2(model, "sgd", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    of = {name: scale[id(p)] for name, p in model.named_parameters()}
    blocks = [of[f"backbone.model.blocks.{i}.attn.qkv.weight"] for i in range(4)]
    assert all(b == 2 * a for a, b in itertools.pairwise(blocks))
    assert of["backbone.model.patch_embed.proj.weight"] == blocks[0] / 2
    assert of["heads.0.classifier.weight"] == blocks[0]
    assert of["heads.1.classifier.weight"] == blocks[2]
    assert of["backbone.model.head.weight"] == max(scale.values()) == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {}),
        ("convnext_atto", {}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 4, "embed_dim": 16, "num_heads": (1, 2, 4, 8)},
        ),
    ],
)
def test_learning_rates_fall_in_every_kind_of_backbone(name, arguments):
    import timm

    inner = timm.create_model(name, pretrained_cfg_overlay={"input_size": (3, 64, 64)}, num_classes=5, **arguments)
    model = offramp.attach(inner, [Exit(1), Exit(3)])
    place = model.group_matcher()
    assert place("heads.0.classifier.weight") < place("heads.1.classifier.weight")
    assert place("heads.1.classifier.weight") <= max(place(n) for n, _ in model.named_parameters())


def test_a_run_with_falling_rates_is_trained(tmp_path):
    flat, falling = fit(tmp_path / "a"), fit(tmp_path / "b", layer_decay=0.5)
    start = tiny_model()

    def moved(model, part):
        return float((dict(model.named_parameters())[part] - dict(start.named_parameters())[part]).detach().abs().max())

    early, late = "backbone.model.patch_embed.proj.weight", "backbone.model.head.weight"
    assert moved(falling, early) < 0.2 * moved(flat, early)
    assert moved(falling, late) > 0.5 * moved(flat, late)


def test_a_tracker_sees_what_the_log_sees(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(tmp_path, tracker="tensorboard", validation=squares(16))
    (file,) = tmp_path.rglob("events.out.*")
    seen = EventAccumulator(str(file)).Reload()
    names = seen.Tags()["scalars"]
    assert {"training/loss", "training/lr", "training/validation/accuracy/exit 3"} <= set(names)
    assert len(seen.Scalars("training/validation/accuracy/exit 0")) == 2
    with pytest.raises(UsageError, match="'nothing' is unknown to accelerate"):
        fit(tmp_path / "b", tracker="nothing")
