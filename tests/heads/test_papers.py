"""The heads of the papers: their sizes, their costs, and what they read."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from offramp.errors import UsageError
from offramp.heads import build_head
from offramp.types import Exit, Tap

VIT_B = Tap(6, 768, (14, 14), 1, 1)
DEIT_B = Tap(6, 768, (14, 14), 2, 2)


def size(name, tap=VIT_B, outputs=100, **options):
    head = build_head(Exit(tap.after, name, options), tap, outputs).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head(torch.randn(1, tap.tokens, tap.dim))
    return sum(p.numel() for p in head.parameters()), counter.get_total_flops() / 2


# parameters and multiply-adds of the authors' heads on ViT-B/16 with 10 classes, at 384 and at 224 px, computed from
# the layers that their notebooks name
AUTHORS = {
    "mlp": ((266_762, 0.265), (266_762, 0.265)),
    "cnn-ignore": ((769_050, 64.4), (379_930, 21.9)),
    "cnn-add": ((769_050, 64.4), (379_930, 21.9)),
    "cnn-project": ((879_642, 128.1), (490_522, 43.6)),
    "vit": ((7_354_634, 4595.6), (7_354_634, 1454.2)),
    "resmlp": ((5_325_772, 2978.6), (5_031_272, 959.6)),
    "mixer": ((5_434_063, 3063.2), (5_140_323, 1046.0)),
}


@pytest.mark.parametrize("name", AUTHORS)
@pytest.mark.parametrize(("grid", "size_of"), [(24, 0), (14, 1)])
def test_the_seven_heads_are_the_authors(name, grid, size_of):
    parameters, mmacs = AUTHORS[name][size_of]
    found = size(name, Tap(1, 768, (grid, grid), 1, 1), 10)
    assert found[0] == parameters
    assert found[1] / 1e6 == pytest.approx(mmacs, abs=0.05)


# the same with 100 classes and as little behind them as ports of the paper have
TABLE = {
    "linear": ({}, 78e3, 0.0768e6),
    "mlp": ({"hidden": (3072, 768)}, 4.80e6, 4.8e6),
    "cnn-ignore": ({"hidden": ()}, 0.189e6, 21.8e6),
    "cnn-add": ({"hidden": ()}, 0.189e6, 21.8e6),
    "cnn-ignore, perceptron": ({"hidden": (3136, 784)}, 5.11e6, 26.7e6),
    "cnn-project": ({"project": "token", "hidden": ()}, 1.37e6, 253e6),
    "cnn-project, in the convolution": ({"hidden": ()}, 0.300e6, 43.4e6),
    "resmlp": ({"class_token": "drop", "hidden": ()}, 4.84e6, 954e6),
    "mixer": ({"class_token": "drop", "norm": "channels", "hidden": ()}, 4.95e6, 1041e6),
    "mixer, as ported": (
        {"class_token": "mix", "norm": "channels", "token_hidden": 4.0, "hidden": ()},
        6.02e6,
        1859e6,
    ),
    "vit": ({"hidden": ()}, 7.17e6, 1454e6),
}


@pytest.mark.parametrize("row", TABLE)
def test_cost_table_of_the_seven_heads(row):
    options, parameters, macs = TABLE[row]
    found = size(row.split(",")[0], **options)
    assert found[0] == pytest.approx(parameters, rel=0.006)
    assert found[1] == pytest.approx(macs, rel=0.011)


@pytest.mark.parametrize(
    ("name", "options", "parameters", "mmacs"),
    [
        ("lph", {}, 1_270_372, 232.6),
        ("lph", {"depthwise": False}, 1_261_156, 231.3),
        ("gah", {"stride": 2}, 2_436_964, 119.4),
        ("gah", {"stride": 3}, 2_436_964, 60.0),
    ],
)
def test_lgvit_heads_exactly(name, options, parameters, mmacs):
    found = size(name, **options)
    assert found[0] == parameters
    assert found[1] / 1e6 == pytest.approx(mmacs, abs=0.06)


@pytest.mark.parametrize(
    ("grid", "dim", "patch", "parameters", "macs"),
    [
        ((28, 28), 512, 4, 288e3, 13.4e6),
        ((28, 28), 512, 2, 143e3, 17.0e6),
        ((14, 14), 1024, 2, 157e3, 7.0e6),
        ((14, 14), 1024, 1, 110e3, 10.6e6),
        ((7, 7), 2048, 1, 91e3, 3.8e6),
    ],
)
def test_cost_of_the_single_layer(grid, dim, patch, parameters, macs):
    found = size("sl-vit", Tap(1, dim, grid), 10, patch=patch)
    assert found[0] == pytest.approx(parameters, rel=0.01)
    assert found[1] == pytest.approx(macs, rel=0.02)


SPATIAL = ["cnn-ignore", "cnn-add", "cnn-project", "lph", "gah", "sl-vit"]


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_a_marked_patch_lands_where_it_was(grid):
    from offramp.heads._grid import to_map, to_tokens

    tap = Tap(1, 8, grid, 2, 2)
    for row in range(grid[0]):
        for column in range(grid[1]):
            tokens = torch.zeros(1, tap.tokens, 8)
            tokens[0, 2 + row * grid[1] + column, 5] = 1
            found = to_map(tokens, tap)
            assert found.nonzero().tolist() == [[0, 5, row, column]]
            assert torch.equal(to_tokens(found), tokens[:, 2:])


def test_neighbours_are_neighbours_in_the_convolution():
    """A depth-wise 3 × 3 kernel that looks one patch up must see the patch above, not the one before."""
    from offramp.heads.lph import LPH

    tap = Tap(1, 4, (3, 5), 1, 1)
    head = LPH(tap, 2).eval()
    with torch.no_grad():
        for conv in (head.local[0], head.local[6]):
            conv.weight.copy_(torch.eye(4)[:, :, None, None])
            conv.bias.zero_()
        head.local[3].weight.zero_()
        head.local[3].weight[:, :, 0, 1] = 1
        head.local[3].bias.zero_()
        tokens = torch.zeros(1, tap.tokens, 4)
        tokens[0, 1 + 5 + 2] = 3.0  # row 1, column 2
        moved = head.features(tokens) - tokens[:, 1:]
    assert moved.abs().sum(2)[0].nonzero()[:, 0].tolist() == [2 * 5 + 2]


def test_gah_picks_patches_and_does_not_average():
    from offramp.heads.gah import GAH

    tap = Tap(1, 16, (14, 14), 1, 1)
    for stride, kept in ((1, 196), (2, 49), (3, 25)):
        head = GAH(tap, 3, stride)
        tokens = torch.randn(2, tap.tokens, 16, requires_grad=True)
        features = head.features(tokens)
        assert features.shape == (2, kept, 16)
        features.sum().backward()
        assert int((tokens.grad[0].abs().sum(1) > 0).sum()) == kept
        assert tokens.grad[0, 0].abs().sum() == 0


def test_lgvit_readout_adds_the_raw_class_token():
    from offramp.heads.gah import GAH

    head = GAH(Tap(1, 16, (4, 4), 1, 1), 3).eval()
    tokens = torch.randn(2, 17, 16)
    expected = head.readout.classifiers[0](head.features(tokens).mean(1) + tokens[:, 0])
    assert torch.allclose(head(tokens), expected)
    deit = GAH(Tap(1, 16, (4, 4), 2, 2), 3).eval()
    tokens = torch.randn(2, 18, 16)
    z = deit.features(tokens).mean(1)
    expected = sum(c(z + tokens[:, i]) for i, c in enumerate(deit.readout.classifiers)) / 2
    assert torch.allclose(deit(tokens), expected)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("mlp", {"hidden": [0.5]}, "one whole number a layer"),
        ("mlp", {"hidden": [0]}, "one whole number a layer"),
        ("cnn-add", {"activation": "tanh"}, "activation is 'tanh'; it is 'elu'"),
        ("cnn-project", {"project": "both"}, "project is 'both'"),
        ("mixer", {"norm": "batch"}, "norm is 'batch'"),
        ("mixer", {"class_token": "add"}, "class_token is 'add'"),
        ("resmlp", {"class_token": "mix"}, "class_token is 'mix'"),
        ("vit", {"hiden": ()}, "hiden"),
    ],
)
def test_options_that_are_none(name, options, error):
    with pytest.raises(UsageError, match=error):
        build_head(Exit(1, name, options), VIT_B, 3)


@pytest.mark.parametrize("name", AUTHORS)
def test_the_perceptron_starts_as_the_authors_do_and_drops_in_training_alone(name):
    torch.manual_seed(0)
    tap = Tap(1, 32, (8, 8), 1, 1)
    head = build_head(Exit(1, name), tap, 5)
    layers = [m for m in head.classifier if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in layers] == [256, 256, 5]
    for layer in layers[:2]:
        assert layer.weight.std().item() == pytest.approx((2 / layer.in_features) ** 0.5, rel=0.05)
        assert not layer.bias.any()
    x = torch.randn(2, tap.tokens, 32)
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))


def test_mixer_normalises_the_tokens_of_each_channel():
    tap = Tap(1, 16, (4, 4), 1, 1)
    norm = build_head(Exit(1, "mixer"), tap, 3).block.norm1
    x = torch.randn(2, 17, 16)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-3).sqrt()
    assert torch.allclose(norm(x), expected, atol=1e-5)


def test_resmlp_is_the_authors_layer_up_to_an_affine_map():
    """Their skips carry the affine output: with its maps at their start the two are one function."""
    tap = Tap(1, 8, (4, 4), 1, 1)
    block = build_head(Exit(1, "resmlp"), tap, 3).block.eval()
    x = torch.randn(2, 17, 8)
    y = block.linear_tokens(x.transpose(1, 2)).transpose(1, 2) + x
    assert torch.allclose(block(x), block.mlp_channels(y) + y, atol=1e-5)


@pytest.mark.parametrize("name", ["mixer", "resmlp"])
def test_the_class_token_is_averaged_or_dropped(name):
    tap = Tap(1, 8, (4, 4), 1, 1)
    tokens = torch.randn(2, 17, 8)
    other = tokens.clone()
    other[:, 0] += 1
    keep, drop = (build_head(Exit(1, name, {"class_token": way}), tap, 3).eval() for way in ("mean", "drop"))
    assert not torch.equal(keep(tokens), keep(other))
    assert torch.equal(drop(tokens), drop(other))


def test_resmlp_mixes_across_patches():
    head = build_head(Exit(1, "resmlp"), Tap(1, 8, (4, 4)), 3)
    tokens = torch.randn(1, 16, 8, requires_grad=True)
    mixed = head.block(tokens)[0, 3].sum()
    grad = torch.autograd.grad(mixed, tokens)[0]
    assert (grad[0].abs().sum(1) > 0).all()


def test_cnn_ignore_ignores_and_cnn_add_adds():
    tap = Tap(1, 8, (4, 4), 1, 1)
    tokens, other = torch.randn(2, 17, 8), torch.randn(2, 17, 8)
    other[:, 1:] = tokens[:, 1:]
    ignore, add = (build_head(Exit(1, name), tap, 3).eval() for name in ("cnn-ignore", "cnn-add"))
    assert torch.equal(ignore(tokens), ignore(other))
    assert not torch.equal(add(tokens), add(other))
    shifted = tokens.clone()
    shifted[:, 1:] += tokens[:, :1]
    ignore.load_state_dict(add.state_dict())
    assert torch.allclose(add(tokens), ignore(shifted), atol=1e-6)


@pytest.mark.parametrize("pool", ["flatten", "cls", "mean"])
def test_sl_vit_pools(pool):
    head = build_head(Exit(1, "sl-vit", {"pool": pool, "patch": 2}), Tap(1, 24, (5, 7)), 3)
    assert head(torch.randn(2, 35, 24)).shape == (2, 3)
    assert head(torch.randn(2, 35, 24), side=torch.randn(2, 2, 24)).shape == (2, 3)
