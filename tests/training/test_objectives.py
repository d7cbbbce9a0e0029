"""What each objective computes, against formulas written out here."""

import math

import pytest
import timm
import torch
from helpers import images, squares, tiny_model, tiny_vit
from torch import nn
from torch.nn import functional

import offramp
from offramp import Exit, UsageError, layouts
from offramp.training import Batch
from offramp.training.objectives.alternating import Alternating, AlternatingWeighted
from offramp.training.objectives.copycat import Copycat
from offramp.training.objectives.equilibrium import GradientEquilibrium
from offramp.training.objectives.layerwise import Layerwise, OneExit
from offramp.training.objectives.lgvit import HeadDistillation
from offramp.training.objectives.self_distillation import SelfDistillation

pytestmark = pytest.mark.slow

X, TARGET = images(8), torch.arange(8) % 5
LGVIT = [
    Exit(1, "lph"),
    Exit(2, "lph"),
    Exit(3, "gah"),
    Exit(4, "gah", {"stride": 3}),
    Exit(5, "gah", {"stride": 3}),
]


def kl(teacher, student):
    """KL(teacher ‖ student) of probabilities, summed over the last dimension."""
    return (teacher * (teacher / student).log()).sum(-1)


def test_alternating_takes_turns():
    model = tiny_model()
    losses = [model.task.loss(o, TARGET) for o in model(X)]
    plain, weighted = Alternating(), AlternatingWeighted()
    for step in (0, 2):
        assert torch.equal(plain(model, Batch(X, TARGET, step))["loss"], losses[-1])
    mean = sum(losses) / 4
    by_depth = sum((k + 1) * loss for k, loss in enumerate(losses)) / 10
    assert torch.allclose(plain(model, Batch(X, TARGET, 1))["loss"], mean)
    assert torch.allclose(weighted(model, Batch(X, TARGET, 3))["loss"], by_depth)


def test_gradient_equilibrium_gives_each_block_the_mean_of_the_exits_behind_it():
    model = tiny_model(after=(1, 3))
    losses = [model.task.loss(o, TARGET) for o in model(X)]
    blocks = [b.mlp.fc1.weight for b in model.backbone.model.blocks]
    alone = [torch.autograd.grad(loss, blocks, retain_graph=True, allow_unused=True) for loss in losses]
    heads = torch.autograd.grad(losses[1], list(model.heads[1].parameters()), retain_graph=True)
    GradientEquilibrium()(model, Batch(X, TARGET))["loss"].backward()
    for i, block in enumerate(blocks):
        behind = [g[i] for g in alone if g[i] is not None]
        assert torch.allclose(block.grad, sum(behind) / len(behind), atol=1e-6)
    assert all(torch.allclose(p.grad, g) for p, g in zip(model.heads[1].parameters(), heads, strict=True))


def test_self_distillation_teaches_without_learning():
    model = tiny_model(after=(1, 2))
    first, second, final = model(X)
    losses = [model.task.loss(o, TARGET) for o in (first, second, final)]
    taught = [9 * kl((final / 3).softmax(1), (o / 3).softmax(1)).mean() for o in (first, second)]
    found = SelfDistillation(weight=0.7, temperature=3.0)(model, Batch(X, TARGET))
    assert torch.allclose(found["loss"], sum(losses) / 3 + 0.7 * sum(taught) / 2, atol=1e-5)
    head = list(model.backbone.model.head.parameters())
    given = torch.autograd.grad(found["loss"], head, retain_graph=True)
    assert all(torch.allclose(g, e) for g, e in zip(given, torch.autograd.grad(losses[-1] / 3, head), strict=True))


def test_layerwise_trains_every_parameter_once():
    model = tiny_model(after=(1, 3))
    sets = [{id(p) for p in OneExit(k).trained(model)} for k in range(3)]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert sets[0] | sets[1] | sets[2] == {id(p) for p in model.parameters()}
    assert id(model.backbone.model.pos_embed) in sets[0]
    assert {id(p) for p in model.backbone.model.blocks[2].parameters()} <= sets[1]
    assert {id(p) for p in model.backbone.model.head.parameters()} <= sets[2]
    assert [stage.share for stage in Layerwise().stages(model, squares(8), None)] == [1 / 3] * 3


def lgvit_model(prefix=1, **options):
    torch.manual_seed(3)
    model = offramp.attach(tiny_vit(5, depth=6, **options), LGVIT)
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters()]:
            p.normal_(std=0.2)
    return model.eval()


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("registers", [0, 2])
def test_lgvit_second_stage(faithful, registers):
    model = lgvit_model(reg_tokens=registers)
    inner, prefix = model.backbone.model, 1 + registers
    h, states = model.enter(0, X), []
    for block in inner.blocks:
        h = block(h)
        states.append(h)
    outputs = model(X)
    final = inner.head(h[:, 0]) if faithful else outputs[-1]
    features = [head.features(s) for head, s in zip(model.heads, states, strict=False)]
    true = sum(functional.cross_entropy(o, TARGET) for o in outputs[:-1])
    taught = sum(4 * kl((final / 2).softmax(1), (o / 2).softmax(1)).mean() for o in outputs[:-1])
    if faithful:
        taught = taught / 5
    last = h[:, prefix:]
    strided = [last.reshape(8, 4, 4, 32)[:, ::s, ::s].reshape(8, -1, 32) for s in (1, 1, 2, 3, 3)]
    hetero = sum(kl(strided[k].softmax(2), features[k].softmax(2)).sum() / 8 for k in (0, 1, 2, 4))
    grams = [f.transpose(1, 2) @ f for f in features]
    homo = functional.mse_loss(features[0], features[1])
    homo = homo + functional.mse_loss(grams[2], grams[4]) + functional.mse_loss(grams[3], grams[4])
    found = HeadDistillation(faithful=faithful)(model, Batch(X, TARGET))
    assert torch.allclose(found["prediction"], 0.7 * true + 0.3 * taught, rtol=1e-4)
    assert torch.allclose(found["heterogeneous"], hetero, rtol=1e-4)
    assert torch.allclose(found["homogeneous"], homo, rtol=1e-4)
    assert torch.allclose(found["loss"], found["prediction"] + 0.01 * (hetero + homo), rtol=1e-4)
    teacher = list(model.heads[1].local.parameters())
    gradient = torch.autograd.grad(found["homogeneous"], teacher, allow_unused=True)
    assert all((g is not None) == faithful for g in gradient), "teaching heads learn from teaching, or do not"


def test_lgvit_second_stage_on_other_heads_and_backbones():
    model = tiny_model()
    found = HeadDistillation()(model, Batch(X, TARGET))
    assert found["heterogeneous"] == found["homogeneous"] == 0
    assert torch.equal(found["loss"], found["prediction"]), "nothing is left to teach but the labels"
    with pytest.raises(UsageError, match="no early exits"):
        HeadDistillation().trained(tiny_model(after=()))


def test_lgvit_second_stage_on_a_backbone_cut_by_its_graph():
    torch.manual_seed(0)
    arguments = {"img_size": 32, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}
    inner = timm.create_model("xcit_nano_12_p8_224", **arguments)
    model = offramp.attach(inner, [Exit(1, "lph"), Exit(2, "lph"), Exit(3, "gah")]).eval()
    batch = Batch(torch.randn(8, 3, 32, 32), TARGET)
    right, faithful = (HeadDistillation(faithful=f, alpha=1.0)(model, batch)["prediction"] for f in (False, True))
    outputs = model(batch.inputs)[:-1]
    expected = [model.task.distillation(o, inner(batch.inputs), 2.0) for o in outputs]
    assert torch.allclose(right, sum(expected), rtol=1e-4)
    inner.norm = nn.Identity()
    expected = [model.task.distillation(o, inner(batch.inputs), 2.0) / 5 for o in outputs]
    assert torch.allclose(faithful, sum(expected), rtol=1e-4)


@pytest.mark.parametrize("labels", ["hard", "soft", "both"])
def test_copycat_labels(labels, tmp_path):
    model = tiny_model()
    samples = squares(64)
    copy, true = Copycat(samples, labels).stages(model, samples, tmp_path)
    answers = torch.stack([model(x[None])[-1][0] for x, _ in dataset(samples, model)])
    hard = functional.one_hot(answers.argmax(1), 5).float()
    expected = {"hard": hard, "soft": answers.softmax(1), "both": (hard + answers.softmax(1)) / 2}[labels]
    found = torch.as_tensor(copy.samples.targets)
    found = functional.one_hot(found, 5).float() if labels == "hard" else found
    assert torch.allclose(found, expected, atol=1e-5)
    assert true.samples is None
    assert copy.share + true.share == 1


def test_copycat_keeps_the_teachers_answers_and_leaves_out_the_unsure(tmp_path):
    model = tiny_model()
    samples = squares(64)
    Copycat(samples).stages(model, samples, tmp_path)
    (file,) = (tmp_path / "teacher").iterdir()
    written = file.stat().st_mtime_ns
    x = torch.stack([image for image, _ in dataset(samples, model)])
    with torch.no_grad():
        outputs = model(x)
    middle = float(model.task.score("confidence", outputs[-1], None).median())
    copy, _ = Copycat(samples, min_confidence=middle).stages(model, samples, tmp_path)
    assert file.stat().st_mtime_ns == written
    assert 30 < len(copy.samples) < 36
    with pytest.raises(UsageError, match="for every unlabelled image"):
        Copycat(samples, min_confidence=1.1).stages(model, samples, tmp_path)
    with pytest.raises(UsageError, match="did you mean 'hard'"):
        Copycat(samples, "hart")


def test_lgvit_layout_fits_a_deep_backbone():
    assert [e.after for e in layouts.lgvit(tiny_vit(depth=12))] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert math.isclose(sum(s.share for s in Layerwise().stages(tiny_model(), squares(8), None)), 1)


def dataset(samples, model):
    from offramp.data import Prepared

    return [Prepared(samples, model.input)[i] for i in range(len(samples))]
