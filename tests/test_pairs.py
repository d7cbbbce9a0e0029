"""Samples of two parts: everything that reads a batch takes a tuple of tensors, and counts its samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from helpers import spread_thresholds, tiny_vit
from torch.utils.data import Dataset

import offramp
from offramp import DataError, Exit
from offramp.bench import bench_forced, profile_in
from offramp.data import loader
from offramp.engine import RuntimeInPieces, open_runtime
from offramp.inputs import OneTensor
from offramp.policies.threshold import Threshold
from offramp.registry import INPUTS

pytestmark = pytest.mark.slow

N = 20


@dataclass(frozen=True)
class Pair(OneTensor):
    """An image and a vector, which the backbone does not read."""

    input_size: tuple[int, int, int] = (1, 16, 16)

    noun: ClassVar[str] = "pairs"
    suffixes: ClassVar[frozenset[str]] = frozenset({".pair"})

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"images": self.input_size, "vectors": (3,)}

    def example(self, n, generator=None, raw=False):
        return torch.randn(n, *self.input_size, generator=generator), torch.randn(n, 3, generator=generator)

    def check(self, x, raw=False):
        if not isinstance(x, tuple) or [tuple(part.shape[1:]) for part in x] != list(self.shapes.values()):
            raise DataError("these are no pairs")


@pytest.fixture(scope="module")
def setting():
    offramp.register("input", "pair-of-a-test")(Pair)
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [Exit(1), Exit(2)], model_input=Pair()).eval()
    plain = offramp.attach(model.backbone.model, [Exit(1), Exit(2)]).eval()
    plain.heads = model.heads
    with torch.no_grad():
        for p in model.heads.parameters():
            p.normal_(std=0.3)
    x = model.input.example(N, torch.Generator().manual_seed(0))
    policy = Threshold(spread_thresholds(plain, x[0]))
    yield model, plain, x, policy
    INPUTS.forget("pair-of-a-test")


def test_a_batch_of_pairs_has_as_many_samples_as_pairs(setting, tmp_path):
    model, plain, x, policy = setting
    expected = offramp.run(plain, x[0], policy)
    trace = offramp.run(model, x, policy)
    assert torch.equal(trace.exit, expected.exit)
    assert torch.equal(trace.output, expected.output)
    assert len(set(trace.exit.tolist())) > 1
    pieces = offramp.run(model, x, policy, RuntimeInPieces(open_runtime("torch"), 7))
    assert torch.equal(pieces.exit, expected.exit)
    answers = list(offramp.anytime(model, x))
    assert [len(a.exit) for a in answers] == [N] * 3
    costs = offramp.profile(model, batch_size=4, repeats=2)
    timed = offramp.run_until(model, x, float("inf"), costs, policy)
    assert torch.equal(timed.exit, trace.exit)
    assert len(offramp.run(model, tuple(part[:0] for part in x), policy).exit) == 0
    with pytest.raises(DataError, match="no pairs"):
        offramp.run(model, x[0], policy)
    table = offramp.tabulate(model, [(x, torch.zeros(N))])
    assert torch.equal(offramp.replay(policy, table).exit, trace.exit)
    offramp.save(model, tmp_path / "m", policy)
    assert offramp.load(tmp_path / "m")[0].input == Pair()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_takes_both_parts_by_name(setting, runtime, tmp_path):
    model, _, x, policy = setting
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    session = open_runtime(runtime).open(tmp_path / "m.onnx")
    trace = session(x)
    assert torch.equal(trace.exit, offramp.run(model, x, policy).exit)
    with pytest.raises(DataError, match="no pairs"):
        session(x[0])


def test_pairs_are_timed(setting):
    model, _, _, _ = setting
    (row,) = bench_forced(model, (0.5, 0.25, 0.25), [4], 8, 1)
    assert row["batch"] == 4
    assert row["exit_shares"] == [0.5, 0.25, 0.25]
    assert profile_in("torch", model, repeats=2).seconds is not None


class Pairs(Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return N

    def __getitem__(self, i):
        return tuple(part[i] for part in self.x), i % 5


def test_pairs_are_trained_on(setting, tmp_path):
    _, _, x, _ = setting
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [Exit(1)], model_input=Pair())
    before = model.heads[0].classifier.weight.clone()
    options = {"epochs": 2, "batch_size": 5, "precision": "fp32", "device": "cpu", "accumulate": 2}
    offramp.train(model, Pairs(x), folder=tmp_path, **options)
    assert not torch.equal(model.heads[0].classifier.weight, before)
    table = offramp.tabulate(model, loader(offramp.data.as_samples(Pairs(x)), model.input, 7))
    assert len(table) == N
    with pytest.raises(offramp.UsageError, match="mixing is for samples of one tensor"):
        offramp.train(
            model, Pairs(x), folder=tmp_path / "b", **{**options, "batch_size": 4}, mixing={"mixup_alpha": 0.1}
        )
