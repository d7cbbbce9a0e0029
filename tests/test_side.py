"""Exits that read another modality: encoded once, where a policy first asks for it, and never where none does."""

import copy
import dataclasses
import json
import math
from contextlib import contextmanager

import numpy as np
import pytest
import timm
import torch
from helpers import SIZE, Killed, inputs, pair_model, spread_thresholds, tiny_vit
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import offramp
from offramp import DataError, Exit, UsageError
from offramp._batches import take
from offramp.artifact.described import build
from offramp.bench import bench_forced, profile_in
from offramp.bench.memory import peak_mb
from offramp.data import Prepared, Samples
from offramp.engine import open_runtime
from offramp.errors import ArtifactError
from offramp.inputs import ImageInput, LogMelInput, PairInput
from offramp.inputs._sound import Clip
from offramp.policies.forced import Forced
from offramp.policies.patience import Patience
from offramp.policies.threshold import Threshold
from offramp.registry import OBJECTIVES
from offramp.search.columns import columns_of
from offramp.search.frontier import evaluate, frontier
from offramp.training import Features
from offramp.training.objectives.copycat import Copycat
from offramp.types import CostTable, ExitTable, PartCosts

N = 48
SEVERAL = ("layerwise", "mixed", "fine-tune", "lgvit", "copycat")
"""Ways of training in several stages."""
BOTH = [Exit(1), Exit(1, "sl-vit", side="append"), Exit(2, "mlp", side="film"), Exit(3), Exit(3, "vit", side="append")]
HEARS = [Exit(1, side="append")]
ASKED = [(0,), (1,), (0, 1), (0, 2, 4), (3,), (), (0, 1, 2, 3, 4)]


def cnn():
    """Its state between blocks is a tuple of tensors."""
    return timm.create_model(
        "mobilenetv3_small_050", in_chans=1, num_classes=5, pretrained_cfg_overlay={"input_size": SIZE}
    )


@pytest.fixture(scope="module", params=[None, "append", "film"], ids=["deaf", "append", "film"])
def model(request):
    return pair_model(BOTH, request.param)


def thresholds(model, x, asked):
    every = spread_thresholds(model, x)
    return Threshold(tuple(t if k in asked else None for k, t in enumerate(every)))


@contextmanager
def counted(model):
    """How many samples the encoder is given, call by call."""
    given = []
    hook = model.side.register_forward_pre_hook(lambda _, arguments: given.append(len(arguments[0])))
    yield given
    hook.remove()


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_who_comes_to_the_first_exit_that_hears_is_encoded_once_and_nobody_else(model, asked):
    x = inputs(model, N)
    policy = thresholds(model, x, asked)
    with counted(model) as given:
        trace = offramp.run(model, x, policy)
    first = model.chain.heard(policy.heads)
    came = 0 if first is None else int((trace.exit >= first).sum())
    assert given == ([came] if came else [])


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_costs_are_the_multiply_adds_of_such_a_run(model, asked):
    x, costs = take(inputs(model, N), torch.arange(1)), offramp.profile(model, repeats=0)
    for exit in (*asked, len(model.exits)):
        policy = Forced((exit,), len(model.exits), "confidence", tuple(asked))
        with FlopCounterMode(display=False) as counter:
            offramp.run(model, x, policy)
        assert counter.get_total_flops() / 2 == costs.to_exit(asked)[exit]
    static = model.static(x)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        assert torch.equal(model.static(x), static)
    assert counter.get_total_flops() / 2 == costs.macs.static == costs.in_chain().static
    assert torch.equal(static, model(x)[-1])
    only = costs.in_chain().only(asked)
    assert only.to_exit(range(len(asked)))[-1] == costs.to_exit(asked)[-1]
    again = CostTable.from_json(costs.to_json())
    assert again.chain.side == model.chain.side
    assert again.to_exit(asked) == costs.to_exit(asked)


def test_what_is_missing_is_not_read(model):
    x = inputs(model, N)
    image, clips, heard = x
    others = torch.where(heard[:, :, None, None] > 0, clips, 1000 + clips)
    assert not torch.equal(clips, others)
    for a, b in zip(model(x), model((image, others, heard)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with_sound, without = model((image, clips, torch.ones(N, 1))), model((image, clips, torch.zeros(N, 1)))
    for k in range(len(with_sound)):
        assert torch.equal(with_sound[k], without[k]) == (k not in model.chain.side)


def test_film_of_nothing_leaves_a_head_as_it_is():
    plain = offramp.attach(tiny_vit(), [Exit(2, "mlp")]).eval()
    model = pair_model([Exit(2, "mlp", side="film")], vit=plain.backbone.model)
    model.heads[0].head.load_state_dict(plain.heads[0].state_dict())
    image, clips, _ = inputs(model, N)
    expected = plain(image)[0]
    assert torch.allclose(model((image, clips, torch.zeros(N, 1)))[0], expected, atol=1e-5)
    for p in model.heads[0].fusion.parameters():  # as it is built
        torch.nn.init.zeros_(p)
    assert torch.allclose(model((image, clips, torch.ones(N, 1)))[0], expected, atol=1e-5)


@pytest.mark.parametrize("make", [tiny_vit, cnn], ids=["vit", "states of several tensors"])
def test_replay_order_company_deadlines_and_anytime(make):
    depth = len(offramp.backbones.cut(make()).steps)
    exits = [Exit(1), Exit(1, "sl-vit", side="append"), Exit(2, side="film")]
    model = pair_model(exits, vit=make())
    assert depth > 2
    x = inputs(model, N)
    table = offramp.tabulate(model, [(x, torch.zeros(N))])
    costs = offramp.profile(model, batch_size=N, repeats=2)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    for asked in [(0,), (1,), (0, 1, 2), (2,), ()]:
        policy = thresholds(model, x, asked)
        live = offramp.run(model, x, policy)
        assert torch.equal(live.exit, offramp.replay(policy, table).exit)
        assert torch.equal(offramp.run(model, take(x, order), policy).exit, live.exit[order])
        for answer in ("last", "cache", "product", "geometric"):
            timed = offramp.run_until(model, x, math.inf, costs, policy, answer)
            assert torch.equal(timed.exit, live.exit)
            assert torch.equal(timed.output, live.output)
            hurried = offramp.run_until(model, x, 0.0, costs, policy, answer)
            assert torch.isfinite(hurried.output).all()
    steps = list(offramp.anytime(model, x))
    for step, output in zip(steps, model(x), strict=True):
        assert torch.allclose(step.output, output, atol=1e-5)


def test_at_once_where_the_only_exit_before_a_deadline_hears():
    model = pair_model([Exit(1, "sl-vit", side="append"), Exit(2)])
    x = inputs(model, N)
    costs = offramp.profile(model, batch_size=N, repeats=2)
    found = offramp.run_until(model, x, 0.0, costs, Threshold((None, 0.9)))
    assert found.exit.tolist() == [0] * N
    assert torch.allclose(found.output, model(x)[0], atol=1e-5)


@pytest.mark.slow
def test_a_file_does_the_same_whatever_is_switched_on(model, tmp_path):
    x = inputs(model, N)
    offramp.export_onnx(model, tmp_path / "m.onnx", thresholds(model, x, range(5)))
    never, outputs = thresholds(model, x, ()), model(x)
    for runtime in ("onnxruntime", "openvino"):
        session = open_runtime(runtime).open(tmp_path / "m.onnx")
        assert session.file.chain.side == model.chain.side
        for asked in ASKED:
            policy = thresholds(model, x, asked)
            live, found = offramp.run(model, x, policy), session(x, policy)
            assert torch.equal(found.exit, live.exit)
            assert torch.allclose(found.output, live.output, atol=1e-4)
            assert len(session(take(x, torch.arange(0)), policy).exit) == 0
        for k, output in enumerate(outputs):
            assert torch.allclose(session(x, never, max_exit=k).output, output, atol=1e-4)
    costs = CostTable.from_json(session.file.about["costs"])
    assert costs.to_exit((0, 1)) == offramp.profile(model, repeats=0).to_exit((0, 1))


@pytest.mark.slowest
def test_files_of_other_policies_and_of_fixed_exits(model, tmp_path):
    x = inputs(model, N)
    for policy in (Patience(1, (1, 3)), Patience(1, (0, 3)), thresholds(model, x, (3, 4)), thresholds(model, x, ())):
        offramp.export_onnx(model, tmp_path / "m.onnx", policy, fixed=True)
        live = offramp.run(model, x, policy)
        for runtime in ("onnxruntime", "openvino"):
            found = open_runtime(runtime).open(tmp_path / "m.onnx")(x)
            assert torch.equal(found.exit, live.exit)
            assert torch.allclose(found.output, live.output, atol=1e-4)


@pytest.mark.slowest
def test_an_int8_file_hears_too(tmp_path):
    model = pair_model(BOTH[:2], "film")
    x = inputs(model, N)
    policy = thresholds(model, x, ())
    offramp.export_onnx(model, tmp_path / "m.onnx", policy, int8=[x])
    session = open_runtime("onnxruntime").open(tmp_path / "m.onnx")
    with torch.inference_mode():
        outputs = model(x)
    for k, output in enumerate(outputs):
        found = session(x, policy, max_exit=k).output
        assert not torch.equal(found, output)
        assert float((found - output).abs().mean()) < 0.15 * float(output.std())


@pytest.mark.slow
def test_a_file_prepares_both_parts(tmp_path):
    model = pair_model(BOTH[:2])
    reads = model.input
    square = dataclasses.replace(reads.image, interpolation="bilinear", crop_pct=1.0)
    model.input = dataclasses.replace(reads, image=square)
    policy = thresholds(model, inputs(model, N), (1,))
    offramp.export_onnx(model, tmp_path / "m.onnx", policy, preprocess=True)
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8))
    for runtime in ("onnxruntime", "openvino"):
        session = open_runtime(runtime).open(tmp_path / "m.onnx")
        for clip in (Clip(rng.normal(0, 0.1, 5000).astype(np.float32), 8_000), None):
            prepared = tuple(part[None] for part in model.input.transform()((picture, clip)))
            found = session(model.input.raw((picture, clip)), max_exit=1)
            assert torch.allclose(found.output, model(prepared)[1], atol=0.02)


@pytest.mark.slowest
def test_static_networks_are_timed_beside_it_in_every_runtime():
    model = pair_model(BOTH[:2], "film")
    for name in ("torch", "onnxruntime", "openvino"):
        runtime = open_runtime(name)
        x = inputs(model, 4)
        assert torch.allclose(runtime.static(model.static, x)(x), model(x)[-1], atol=1e-4)
        (row,) = bench_forced(model, (0.25, 0.25, 0.5), [4], 4, 1, runtime=runtime)
        assert row["macs_speedup"] > 0
    seconds = profile_in("onnxruntime", model, repeats=2).seconds
    assert seconds is not None
    assert seconds.hears


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    x = inputs(model, N)
    table = offramp.tabulate(model, [(x, torch.zeros(N, dtype=torch.long))])
    costs = offramp.profile(model, repeats=0)
    policy = offramp.calibrate(table, costs, target_speedup=1.1)
    offramp.save(model, tmp_path / "m", policy, table, costs)
    loaded, rule = offramp.load(tmp_path / "m")
    assert loaded.input == model.input
    assert loaded.placed == model.placed
    assert rule == policy
    assert all(torch.equal(a, b) for a, b in zip(loaded(x), model(x), strict=True))
    other = pair_model([Exit(e.after, e.head, side=None if k == 1 else e.side) for k, e in enumerate(BOTH)])
    offramp.save(model, tmp_path / "n", policy, table, dataclasses.replace(costs, side=other.chain.side))
    with pytest.raises(ArtifactError, match=r"at odds|another model"):
        offramp.load(tmp_path / "n")


def worth(side, final_hears, seed=0):
    """Costs and answers where the second exit hears and is right more often, for so much."""
    rng, n = np.random.default_rng(seed), 2000
    targets = torch.from_numpy(rng.integers(0, 2, n))
    outputs = []
    for quality in (0.7, 0.9, 0.92):  # the surer, the more often right
        sure = torch.from_numpy(rng.random(n))
        right = torch.from_numpy(rng.random(n)) < quality + (1 - quality) * (sure - 0.5)
        outputs.append(4 * sure[:, None] * torch.nn.functional.one_hot(torch.where(right, targets, 1 - targets), 2))
    table = ExitTable(torch.stack(outputs).float(), targets, (1, 1, 2), ("a", "b", "final"), "classification")
    hears = (1, 2) if final_hears else (1,)
    parts = PartCosts(1.0, (10.0, 30.0), (1.0, 1.0), 1.0, side=side, hears=final_hears)
    return columns_of(table, CostTable((1, 1), parts, side=hears))


def test_the_search_asks_for_sound_where_that_is_worth_its_cost():
    def cheapest(side, final_hears, quality):
        columns = worth(side, final_hears)
        return min((p for p in frontier(columns) if p.quality >= quality), key=lambda p: p.cost)

    assert cheapest(5.0, False, 0.85).thresholds[1] is not None, "cheaper than the next block"
    assert cheapest(500.0, False, 0.85).thresholds[1] is None, "dearer than the whole network"
    for side, final_hears in ((5.0, False), (40.0, False), (5.0, True), (25.0, True), (500.0, True)):
        columns = worth(side, final_hears)
        grid = [None, *np.linspace(0.5, 1.0, 26)]
        tried, found = [evaluate(columns, (a, b)) for a in grid for b in grid], frontier(columns)
        for price in np.logspace(-3, 0, 12) / columns.static:
            best, own = (max(p.quality - price * p.cost for p in points) for points in (tried, found))
            assert own >= best - 0.004, "no pair of thresholds is worth more"


def test_a_description_of_vast_sound_is_refused_before_anything_is_made_of_it(tmp_path):
    model = pair_model(HEARS)
    offramp.save(model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    vast = [1, 20_000, 100_000]
    alone, both = copy.deepcopy(config), copy.deepcopy(config)
    for changed in (alone, both):
        changed["side"]["input_size"] = vast
    both["input"]["sound"] |= {"input_size": vast, "n_fft": 65_536, "sample_rate": 96_000, "seconds": 2.0}
    for changed in (alone, both):
        before = peak_mb()
        with pytest.raises(UsageError, match=r"at most 67108864|side encoder that reads"):
            build(changed, model.state_dict())
        assert (peak_mb() or 0) - (before or 0) < 1000, "it would take 8 GB"


def samples():
    """A picture says which of two pairs of classes it is, and the clip which of the pair; some clips are missing."""
    rng = np.random.default_rng(0)
    targets, made = rng.integers(0, 4, 160), []
    for i, target in enumerate(targets):
        pixels = rng.integers(0, 60, (16, 16), np.uint8)
        pixels[:, 8 * (target // 2) : 8 * (target // 2) + 8] += 150
        wave = np.sin(2 * np.pi * (500, 1500)[target % 2] * np.arange(4000) / 8000) * 0.3
        clip = None if i % 8 == 0 else Clip((wave + rng.normal(0, 0.01, 4000)).astype(np.float32), 8_000)
        made.append((Image.fromarray(pixels), clip))
    return Samples(made.__getitem__, targets.astype(np.int64))


OPTIONS = {"batch_size": 16, "precision": "fp32", "device": "cpu", "augment": {"missing": 0.2}}


@pytest.mark.slow
def test_it_learns_from_both_and_resumes_to_the_same_bits(tmp_path):
    ends = []
    for name, kills in (("one", False), ("two", True)):
        model = pair_model([Exit(1), Exit(1, "sl-vit", side="append")], "append")
        data = samples()
        if kills:
            killed = Samples(Killed(data.read, 500), data.targets)
            with pytest.raises(KeyboardInterrupt):
                offramp.train(model, killed, folder=tmp_path / name, epochs=8, checkpoint_seconds=0.0, **OPTIONS)
            model = pair_model([Exit(1), Exit(1, "sl-vit", side="append")], "append")
        offramp.train(model, data, folder=tmp_path / name, epochs=8, checkpoint_seconds=0.0, **OPTIONS)
        ends.append(model)
    assert all(torch.equal(ends[0].state_dict()[k], v) for k, v in ends[1].state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_way_of_training_takes_pairs_or_says_why_not(name, tmp_path):
    model, data = pair_model([Exit(1), Exit(1, "sl-vit", side="append"), Exit(3)], "film"), samples()
    objective = Copycat(data) if name == "copycat" else name
    before = {k: v.clone() for k, v in model.state_dict().items()}
    options = {**OPTIONS, "batch_size": 40, "epochs": 4 if name in SEVERAL else 1}
    if name.startswith("mt-vit"):
        with pytest.raises(UsageError, match=r"path|router"):
            offramp.train(model, data, objective, folder=tmp_path, **options)
        return
    deaf = []

    def watch(head, arguments):
        encoded, there = arguments[1]
        deaf.append(bool((encoded[there[:, 0] > 0] == 0).all()))

    for head in (model.heads[1], model.get_classifier()):
        head.register_forward_pre_hook(watch)
    offramp.train(model, data, objective, folder=tmp_path, **options)
    assert deaf
    assert not any(deaf), "an exit learned from a place where side tokens were still to come"
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["append", "film"])
def test_frozen_training_changes_heads_alone(tmp_path, fusion):
    model = pair_model([Exit(1), Exit(1, "sl-vit", side=fusion)])
    x = inputs(model, N)
    final = model(x)[-1]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    offramp.train(model, samples(), "frozen", folder=tmp_path, epochs=1, **OPTIONS)
    after = model.state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"heads"}
    assert any(name.startswith("heads.1.fusion") and not torch.equal(v, after[name]) for name, v in before.items())
    assert torch.equal(model.eval()(x)[-1], final)


def test_a_head_that_copies_something_of_the_backbone_does_so_behind_a_fusion_too():
    model = pair_model([Exit(1, "lens"), Exit(1, "lens", side="film")])
    copied = [dict(head.named_buffers()) for head in (model.heads[0], model.heads[1].head)]
    assert copied[0]
    assert all(torch.equal(value, copied[1][name]) for name, value in copied[0].items())
    assert any(value.any() for value in copied[1].values())


def test_crowds_are_counted_by_maps_that_hear():
    vit = tiny_vit(1)
    plain = pair_model(BOTH[:2])
    exits = [Exit(1, "density"), Exit(2, "density", side="film")]
    side = listener()
    model = offramp.attach(
        vit, exits, "density", model_input=plain.input, side=side, final=Exit(4, "density", side="film")
    ).eval()
    with torch.no_grad():
        for k in (1, 2):
            head = model.module_of(k)
            head.fusion.affine.weight.normal_(std=0.1)
            head.head.maps[-1].weight.normal_(std=0.5)
    x = inputs(model, N)
    image, clips, _ = x
    heard, unheard = (model((image, clips, torch.full((N, 1), there))) for there in (1.0, 0.0))
    assert [tuple(output.shape[1:]) for output in heard] == [(1, 4, 4)] * 3
    assert [torch.equal(a, b) for a, b in zip(heard, unheard, strict=True)] == [True, False, False]
    table = offramp.tabulate(model, [(x, torch.zeros(N))])
    moved = (table.of(1) - table.of(0)).abs().median()
    policy = Threshold((None, float(1 / (1 + moved))), "change")
    live = offramp.run(model, x, policy)
    assert torch.equal(live.exit, offramp.replay(policy, table).exit)


def test_missing_clips_teach_no_batch_norm():
    model = pair_model([Exit(1, "sl-vit", side="append")]).train()
    image, clips, heard = inputs(model, N)
    means = [m.running_mean for m in model.side.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    model((image, clips, torch.zeros(N, 1)))
    assert all(not m.any() for m in means)
    other = torch.where(heard[:, :, None, None] > 0, clips, 100.0)
    assert torch.allclose(model.side(clips, heard), model.side(other, heard), atol=1e-4)


def test_training_leaves_clips_out_in_the_share_that_was_asked_and_the_same_ones_again():
    reads, data = pair_model(HEARS).input, samples()
    whole = sum(data.read(i)[1] is not None for i in range(len(data)))
    for share in (0.0, 0.3, 1.0):
        prepared = Prepared(data, reads, {"missing": share}, seed=3)
        there = [[float(prepared[epoch, i][0][2]) for i in range(len(data))] for epoch in (0, 0, 1)]
        assert there[0] == there[1]
        assert (there[0] != there[2]) == (share == 0.3)
        assert sum(there[0]) == pytest.approx(whole * (1 - share), abs=20 if share == 0.3 else 0)
    for wrong, said in (
        ({"missing": 1.5}, "missing is 1.5"),
        ({"missing": True}, "missing is"),
        ({"hflip": 1}, "hflip"),
    ):
        with pytest.raises(UsageError, match=said):
            reads.transform(wrong)


VIT, SOUND = tiny_vit(), LogMelInput((1, 32, 21), 8_000, 0.5, 256)
READS = PairInput(ImageInput.for_backbone(VIT, SIZE), SOUND)


def listener(classes=0, size=(1, 32, 21)):
    small = {"in_chans": 1, "channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}
    return timm.create_model("resnet18", num_classes=classes, pretrained_cfg_overlay={"input_size": size}, **small)


@pytest.mark.parametrize(
    ("exits", "arguments", "said"),
    [
        (HEARS, {"model_input": READS}, "and there is none: give attach a side"),
        ([Exit(1)], {"model_input": READS, "side": listener()}, "no exit reads the side encoder"),
        (HEARS, {"side": listener()}, "needs an input that makes both, such as PairInput"),
        (HEARS, {"side": listener(), "model_input": READS.image}, "makes nothing else for a side encoder"),
        (HEARS, {"side": listener(size=(1, 64, 21)), "model_input": READS}, r"that reads \(1, 64, 21\)"),
        (HEARS, {"side": listener(7), "model_input": READS}, "has no classifier: create it with num_classes=0"),
        ([Exit(1, side="mean")], {"side": listener(), "model_input": READS}, "no fusion 'mean'"),
        (HEARS, {"side": listener(), "model_input": READS, "tails": [2, 4]}, "has one path, and this one has 2"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_sentence(exits, arguments, said):
    with pytest.raises(UsageError, match=said):
        offramp.attach(VIT, exits, **arguments)


def test_batches_that_are_no_pairs_are_refused_and_features_are_of_one_modality(tmp_path):
    model = pair_model(HEARS)
    image, clips, heard = inputs(model, 3)
    policy = Threshold((0.5,))
    for wrong in (image, (image, clips), (image, clips, heard[:2]), (image, clips[:2], heard), (image, image, heard)):
        with pytest.raises(DataError):
            offramp.run(model, wrong, policy)
    with pytest.raises(DataError, match="not finite"):
        offramp.run(model, (image, clips * math.nan, heard), policy)
    with pytest.raises(UsageError, match="another modality"):
        Features(model, tmp_path)
