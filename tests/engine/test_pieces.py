"""A batch in pieces: of what size, and who is computed."""

import pytest
import timm
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp import Exit, UsageError
from offramp.engine import RuntimeInPieces, open_runtime, pieces
from offramp.policies import Routed, for_rows
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold


@pytest.fixture
def quickest_is(monkeypatch):
    """Pieces of one size take a second, all others two; each is computed once, and nothing is timed."""

    def choose(quickest):
        def in_turn(calls, rounds, device):
            for (call,) in calls.values():
                call()
            return {size: [[1.0 if size == str(quickest) else 2.0]] * rounds for size in calls}

        monkeypatch.setattr(pieces, "in_turn", in_turn)

    return choose


@pytest.mark.parametrize("piece", [3, "auto"])
def test_each_segment_is_computed_in_pieces_of_those_who_stayed(piece, quickest_is):
    quickest_is(4)
    model, x = tiny_model(), images(30)
    policy = Threshold(spread_thresholds(model, x))
    session = RuntimeInPieces(open_runtime("torch"), piece).dynamic(model, policy)
    session(x)  # what is quickest is found here
    sizes = {k: [] for k in range(4)}
    hooks = [
        block.register_forward_hook(lambda _, args, __, k=k: sizes[k].append(len(args[0])))
        for k, block in enumerate(model.backbone.steps)
    ]
    trace = session(x)
    for hook in hooks:
        hook.remove()
    size = 3 if piece == 3 else 4
    for k in range(4):
        inside = int((trace.exit >= k).sum())
        assert sizes[k] == [size] * (inside // size) + [inside % size] * (inside % size > 0)
    assert session.pieces == {30: (size,) * 4}


def test_each_size_of_a_batch_has_its_own_and_is_timed_once(quickest_is):
    network = RuntimeInPieces(open_runtime("torch")).static(tiny_model().static, images(2))
    quickest_is(2)
    assert torch.equal(network(images(5)[:0]), torch.empty(0, 5))
    network(images(5))
    quickest_is(8)
    network(images(5))
    network(images(16))
    network(images(1))
    assert network.pieces == {0: 1, 5: 2, 16: 8, 1: 1}


@pytest.mark.parametrize("n", [1, 3, 8])
def test_sizes_that_are_tried(n, quickest_is, monkeypatch):
    tried = []
    monkeypatch.setattr(pieces, "in_turn", lambda calls, *_: tried.extend(calls) or {size: [[0.0]] for size in calls})
    pieces.quickest(lambda size: None, images(n))
    assert tried == {1: [], 3: ["1", "2", "3"], 8: ["1", "2", "4", "8"]}[n]


def test_a_cnn_in_pieces_leaves_as_in_one():
    torch.manual_seed(0)
    backbone = timm.create_model("resnet18", num_classes=5, pretrained_cfg_overlay={"input_size": (3, 32, 32)})
    model = offramp.attach(backbone, [Exit(2), Exit(4)]).eval()
    x = torch.randn(9, 3, 32, 32)
    policy = Threshold(tuple(map(float, offramp.run(model, x, Threshold((1.0, 1.0))).score.sort().values[[3, 6]])))
    expected = offramp.run(model, x, policy)
    for piece in (1, 4, "auto"):
        found = offramp.run(model, x, policy, RuntimeInPieces(open_runtime("torch"), piece))
        assert found.exit.tolist() == expected.exit.tolist()
        assert torch.allclose(found.output, expected.output, atol=1e-4)


@pytest.mark.parametrize("piece", [0, -1, "many"])
def test_a_piece_that_is_none(piece):
    with pytest.raises(UsageError, match="a number of samples from 1, or 'auto'"):
        RuntimeInPieces(open_runtime("torch"), piece)


@pytest.mark.slow
@pytest.mark.parametrize("piece", [1, 4, "auto"])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_is_called_piece_by_piece(name, piece):
    model, x = tiny_model(after=(1, 2), seed=2), images(10)
    whole = open_runtime(name)
    policy, forced = Threshold(spread_thresholds(model, x)), Forced((0, 1, 2, 2, 1) * 2, 2)
    for rule in (policy, forced):
        expected = whole.dynamic(model, rule)(x)
        session = RuntimeInPieces(whole, piece).dynamic(model, rule)
        for found in (session(x), session(x, rule)):
            assert found.exit.tolist() == expected.exit.tolist()
            assert torch.allclose(found.output, expected.output, atol=1e-5)
        assert set(session.pieces) == {10}
        assert len(session(x[:0], Threshold(policy.thresholds) if rule is policy else Forced((), 2)).exit) == 0


def test_a_policy_for_rows_is_cut_with_them():
    forced = Forced((0, 1, 2), 2, entries=(0, 1, 1))
    assert for_rows(forced, slice(1, 3)) == Forced((1, 2), 2, entries=(1, 1))
    assert for_rows(Routed(forced, (0.0, 1.0)), slice(0, 1)) == Routed(Forced((0,), 2, entries=(0,)), (0.0, 1.0))
    policy = Threshold((0.5, 0.5))
    assert for_rows(policy, slice(0, 1)) is policy
