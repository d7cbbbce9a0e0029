"""What any objective can be given: teacher, mixing, smoothing, averaging, curriculum."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers import images, squares, tiny_model, tiny_vit
from torch.nn import functional

import offramp
from offramp import Curriculum, Teacher, UsageError
from offramp.data.stream import TrainingStream
from offramp.inputs import ImageInput
from offramp.training.curriculum import difficulties
from offramp.training.objectives.fine_tune import FineTune
from offramp.training.objectives.joint import Joint
from offramp.training.targets import Targets

pytestmark = pytest.mark.slow

SETTINGS = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu"}


def test_nothing_asked_for_nothing_changed():
    x, y = images(4), torch.tensor([0, 1, 2, 3])
    found = Targets(tiny_model())(x, y)
    assert found[0] is x
    assert found[1] is y


def test_smoothing_and_mixing():
    model = tiny_model()
    x, y = images(6), torch.arange(6) % 5
    _, smooth = Targets(model, label_smoothing=0.1)(x, y)
    assert torch.allclose(smooth, functional.one_hot(y, 5) * 0.9 + 0.02)
    np.random.seed(0)
    mixed, soft = Targets(model, {"mixup_alpha": 1.0})(x, y)
    share = (mixed[0] - x[5])[0, 0, 0] / (x[0] - x[5])[0, 0, 0]
    expected = functional.one_hot(y, 5) * share + functional.one_hot(y.flip(0), 5) * (1 - share)
    assert torch.allclose(mixed, x * share + x.flip(0) * (1 - share), atol=1e-5)
    assert torch.allclose(soft, expected.float(), atol=1e-5)


def test_numbers_can_be_mixed_and_not_smoothed():
    model = tiny_model(task="counting")
    np.random.seed(0)
    _, mixed = Targets(model, {"cutmix_alpha": 1.0})(images(4), torch.tensor([0.0, 10.0, 20.0, 40.0]))
    assert mixed.shape == (4,)
    assert torch.allclose(mixed.sum(), torch.tensor(70.0))
    with pytest.raises(UsageError, match="for classes"):
        Targets(model, label_smoothing=0.1)
    with pytest.raises(UsageError, match="mixup_alfa"):
        Targets(model, {"mixup_alfa": 1.0})


def test_a_teacher_softens_targets_and_sees_its_own_normalisation_and_size():
    model = tiny_model()
    network = tiny_vit(5).eval()
    reads = ImageInput((1, 16, 16), mean=(0.1,), std=(0.2,))
    teacher = Teacher(network, weight=0.3, temperature=2.0, model_input=reads)
    x, y = images(4), torch.tensor([0, 1, 2, 3])
    pixels = x * 0.5 + 0.5
    answers = network((pixels - 0.1) / 0.2)
    expected = 0.7 * functional.one_hot(y, 5) + 0.3 * (answers / 2).softmax(1)
    assert torch.allclose(Targets(model, teacher=teacher)(x, y)[1], expected, atol=1e-5)
    larger = Teacher(tiny_vit(5), model_input=replace(reads, input_size=(1, 32, 32)))
    larger.model.forward = lambda t: t.mean((1, 2, 3))
    assert larger(x, model.input).shape == (4,)
    with pytest.raises(UsageError, match="weight is 0 to 1"):
        Teacher(network, weight=2)


def test_a_teacher_is_followed(tmp_path):
    """Labels that say nothing, a teacher that knows: the student learns from the teacher."""
    samples = squares(128)
    knowing = offramp.attach(tiny_vit(4, class_token=False, global_pool="avg"), [])
    settings = {**SETTINGS, "learning_rate": 1e-2}
    offramp.train(knowing, samples, "backbone", folder=tmp_path / "t", **{**settings, "epochs": 25})
    blind = offramp.data.samples.Samples(samples.read, np.zeros(128, dtype=np.int64))
    student = offramp.attach(tiny_vit(4, class_token=False, global_pool="avg"), [offramp.Exit(2)])
    teacher = Teacher(knowing.backbone.model, weight=1.0)
    offramp.train(student, blind, folder=tmp_path / "s", teacher=teacher, **{**settings, "epochs": 25})
    x = torch.stack([offramp.data.Prepared(samples, student.input)[i][0] for i in range(128)])
    right = [(output.argmax(1) == torch.as_tensor(samples.targets)).float().mean() for output in student(x)]
    assert min(right) > 0.9


def test_averaged_weights_are_kept_and_resumed(tmp_path):
    def fit(folder, **settings):
        model = tiny_model()
        offramp.train(model, squares(64), folder=tmp_path / folder, **{**SETTINGS, **settings})
        return [p.detach().clone() for p in model.parameters()]

    plain, averaged = fit("plain"), fit("averaged", ema=0.9)
    again = fit("averaged", ema=0.9)
    assert not all(torch.equal(a, b) for a, b in zip(plain, averaged, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(averaged, again, strict=True))


def test_mixing_resumes_where_it_was(tmp_path):
    def fit(folder, epochs=2):
        model = tiny_model()
        options = {"mixing": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}, "label_smoothing": 0.1}
        offramp.train(model, squares(64), folder=tmp_path / folder, **{**SETTINGS, "epochs": epochs}, **options)
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(fit("a"), fit("b"), strict=True))
    with pytest.raises(UsageError, match="do not make pairs"):
        offramp.train(
            tiny_model(), squares(64), folder=tmp_path / "c", batch_size=15, mixing={"mixup_alpha": 1.0}, device="cpu"
        )


def test_mixing_may_end_before_the_training(tmp_path):
    def fit(folder, **options):
        model = tiny_model()
        settings = {**SETTINGS, "epochs": 2, "label_smoothing": 0.1, **options}
        offramp.train(model, squares(64), folder=tmp_path / folder, **settings)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    mixing = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    never, always = fit("never"), fit("always", mixing=mixing)
    assert torch.equal(fit("for 0", mixing=mixing, mixing_epochs=0), never)
    assert torch.equal(fit("for 2", mixing=mixing, mixing_epochs=2), always)
    once = fit("for 1", mixing=mixing, mixing_epochs=1)
    assert not torch.equal(once, never)
    assert not torch.equal(once, always)


def test_a_curriculum_lets_in_the_easy_first():
    difficulty = np.array([0.9, 0.1, 0.5, 0.3])
    curriculum = Curriculum(start=0.5, over=0.5)
    assert curriculum.pool(difficulty, 0, 4).tolist() == [1, 3]
    assert curriculum.pool(difficulty, 1, 4).tolist() == [1, 3, 2]
    assert sorted(curriculum.pool(difficulty, 2, 4)) == [0, 1, 2, 3]
    assert Curriculum(0.25, 1, hardest_first=True).pool(difficulty, 0, 4).tolist() == [0]
    stream = TrainingStream(4, 2, 2, seed=0, pool=lambda epoch: curriculum.pool(difficulty, epoch, 4))
    epochs = {0: [], 1: []}
    for epoch, i in stream:
        epochs[epoch].append(i)
    assert sorted(epochs[0]) == [1, 1, 3, 3]
    assert len(epochs[1]) == 4
    with pytest.raises(UsageError, match="shares above 0"):
        Curriculum(start=0)


def test_difficulty_is_the_teachers_loss(tmp_path):
    model, samples = tiny_model(), squares(10)
    teacher = Teacher(tiny_vit(5), model_input=model.input)
    found = difficulties(teacher, model, samples, 4)
    x = torch.stack([offramp.data.Prepared(samples, model.input)[i][0] for i in range(10)])
    expected = functional.cross_entropy(teacher.model(x), torch.as_tensor(samples.targets), reduction="none")
    assert np.allclose(found, expected.detach().numpy(), atol=1e-5)
    offramp.train(model, squares(64), folder=tmp_path / "a", teacher=teacher, curriculum=Curriculum(), **SETTINGS)
    with pytest.raises(UsageError, match="needs a teacher"):
        offramp.train(model, squares(64), folder=tmp_path / "b", curriculum=Curriculum(), **SETTINGS)


def test_an_optimiser_of_timms(tmp_path):
    model = tiny_model()
    offramp.train(model, squares(64), folder=tmp_path / "a", optimizer="nmuon", **SETTINGS)
    with pytest.raises(UsageError, match="no optimiser"):
        offramp.train(model, squares(64), folder=tmp_path / "b", optimizer="nmoun", **SETTINGS)


def test_stages_share_the_epochs(tmp_path):
    model = tiny_model()
    offramp.train(model, squares(64), "mixed", folder=tmp_path / "a", **{**SETTINGS, "epochs": 3})
    assert [f.name for f in sorted((tmp_path / "a").iterdir())] == ["run.json", "stage-1", "stage-2"]
    with pytest.raises(UsageError, match="each needs at least one"):
        offramp.train(model, squares(64), "layerwise", folder=tmp_path / "b", **{**SETTINGS, "epochs": 3})
    assert not (tmp_path / "b").exists()


def test_fine_tuning_leaves_the_final_exit_as_if_there_were_no_exits(tmp_path):
    """Heads learn at a rate of their own, behind it, and what it became does not move."""
    alone, model = tiny_model(), tiny_model()
    settings = {**SETTINGS, "learning_rate": 1e-3}
    offramp.train(alone, squares(64), "backbone", folder=tmp_path / "a", **{**settings, "epochs": 2})
    ways = {**settings, "epochs": 4, "head_rate": 7.0}
    offramp.train(model, squares(64), FineTune(), folder=tmp_path / "b", **ways)
    x = images(8)
    with torch.no_grad():
        assert torch.equal(model(x)[-1], alone(x)[-1])
        assert not torch.equal(model(x)[0], alone(x)[0])
    for share in (0.0, 1.0):
        with pytest.raises(UsageError, match="it lies between 0 and 1"):
            FineTune(share)


@pytest.mark.parametrize("optimizer", ["sgd", "nmuon"])
@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_heads_learn_at_a_rate_of_their_own(optimizer, layer_decay, tmp_path):
    """At 0.001 of the rate they hardly move, and the backbone moves as ever."""
    moved = {}
    settings = {**SETTINGS, "optimizer": optimizer, "layer_decay": layer_decay, "learning_rate": 0.01, "clip": None}
    for rate in (1.0, 0.001):
        model = tiny_model()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        where = {"folder": tmp_path / str(rate), "head_rate": rate}
        offramp.train(model, squares(64), "joint", **where, **settings)
        change = {name: float((p.detach() - before[name]).abs().mean()) for name, p in model.named_parameters()}
        heads = [value for name, value in change.items() if name.startswith("heads.") and name.endswith("weight")]
        rest = [value for name, value in change.items() if "blocks" in name and name.endswith("weight")]
        moved[rate] = (sum(heads) / len(heads), sum(rest) / len(rest))
    assert moved[0.001][0] < 0.01 * moved[1.0][0]
    assert moved[0.001][1] > 0.3 * moved[1.0][1]
    with pytest.raises(UsageError, match="head_rate is 0; it is above 0"):
        offramp.train(tiny_model(), squares(64), folder=tmp_path / "c", head_rate=0.0, **settings)


class Stops(Joint):
    """Joint training that is killed once, before a step."""

    at: ClassVar[int | None] = None

    def __call__(self, model, batch):
        if batch.step == type(self).at:
            type(self).at = None
            raise KeyboardInterrupt
        return super().__call__(model, batch)


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_rates_of_heads_are_resumed_where_they_were(layer_decay, tmp_path):
    def fit(folder):
        model = tiny_model()
        options = {"head_rate": 5.0, "layer_decay": layer_decay, "checkpoint_seconds": 0.0, "learning_rate": 1e-3}
        offramp.train(model, squares(64), Stops(), folder=tmp_path / folder, **SETTINGS, **options)
        return [p.detach().clone() for p in model.parameters()]

    whole = fit("whole")
    Stops.at = 5
    with pytest.raises(KeyboardInterrupt):
        fit("killed")
    assert all(torch.equal(a, b) for a, b in zip(fit("killed"), whole, strict=True))
