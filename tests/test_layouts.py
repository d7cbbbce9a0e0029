"""The papers' placements."""

import pytest
import timm
from helpers import tiny_vit

import offramp
from offramp import UsageError, layouts


def places(exits):
    return [e.after for e in exits]


def test_lgvit_on_vit_base_exactly():
    backbone = timm.create_model("vit_base_patch16_224", num_classes=100)
    exits = layouts.lgvit(backbone)
    assert places(exits) == [4, 5, 6, 7, 8, 9, 10, 11]
    model = offramp.attach(backbone, exits)
    assert sum(p.numel() for p in model.heads.parameters()) == 14_810_912
    assert sum(p.numel() for p in model.parameters()) == 100_686_468
    costs = offramp.profile(model, repeats=0)
    assert sum(costs.macs.heads) / 1e9 == pytest.approx(1.287, abs=5e-4)
    assert costs.macs.static / 1e9 == pytest.approx(17.5, abs=0.1)


def test_lgvit_on_deit():
    backbone = timm.create_model("deit_base_distilled_patch16_224", num_classes=100)
    model = offramp.attach(backbone, layouts.lgvit(backbone))
    assert sum(p.numel() for p in model.heads.parameters()) / 1e6 == pytest.approx(15.43, abs=0.005)


def test_lgvit_on_swin():
    backbone = timm.create_model("swin_base_patch4_window7_224", num_classes=100)
    exits = layouts.lgvit(backbone)
    assert places(exits) == [4, 7, 10, 13, 16, 19, 22, 23]
    model = offramp.attach(backbone, exits)
    assert [model.backbone.taps[k - 1].dim for k in places(exits)] == [256, *[512] * 6, 1024]
    assert [model.backbone.taps[k - 1].grid[0] for k in places(exits)] == [28, *[14] * 6, 7]
    assert sum(p.numel() for p in model.heads.parameters()) / 1e6 == pytest.approx(9.51, abs=0.005)


@pytest.mark.parametrize(("exits", "kinds"), [(2, "lg"), (4, "llgg"), (6, "llgggg"), (8, "llllgggg")])
def test_lgvit_variants(exits, kinds):
    found = layouts.lgvit(tiny_vit(depth=12), exits)
    assert "".join(e.head[0] for e in found) == kinds
    assert places(found)[0] == 4
    assert places(found)[-1] == 11


@pytest.mark.parametrize(("depth", "exits"), [(12, 3), (4, 8)])
def test_lgvit_that_does_not_fit(depth, exits):
    with pytest.raises(UsageError):
        layouts.lgvit(tiny_vit(depth=depth), exits)


def test_every_block():
    found = layouts.every_block(tiny_vit(depth=5), "mlp")
    assert places(found) == [1, 2, 3, 4]
    assert {e.head for e in found} == {"mlp"}


def test_equal_macs_on_a_vit_is_equal_depth():
    assert places(layouts.equal_macs(tiny_vit(depth=12), 3)) == [3, 6, 9]
    assert places(layouts.equal_macs(tiny_vit(depth=4), 3)) == [1, 2, 3]


def test_equal_macs_on_a_cnn_follows_the_cost():
    backbone = timm.create_model("resnet18", pretrained_cfg_overlay={"input_size": (3, 64, 64)})
    exits = layouts.equal_macs(backbone, 3, "sl-vit")
    costs = offramp.profile(offramp.attach(backbone, exits), repeats=0)
    shares = [c / costs.macs.static for c in costs.to_exit(())[:3]]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.07)


def test_more_exits_than_places():
    with pytest.raises(UsageError, match="4 exits on a backbone with 3 places"):
        layouts.equal_macs(tiny_vit(depth=4), 4)
