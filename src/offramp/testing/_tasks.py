"""What every task keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp.tasks import Task, get_task
from offramp.types import Tap

_TAP = Tap(after=2, dim=32, grid=(4, 4), prefix=1, summary=1)
_SAMPLES, _OUTPUTS = 6, 4


def check_task(task: str | Task, targets: Tensor | None = None) -> None:
    """Check that a task reads its own outputs: losses, scores, answers, ensembles, what a table keeps.

    Args:
        task: a name, or the task.
        targets: six of them, ``(6,)`` or as the task has them; class numbers below 4, or numbers, if not given.

    Raises:
        AssertionError: the sentence says what is broken.
    """
    meaning = get_task(task)
    outputs = _OUTPUTS if meaning.classes else 1
    torch.manual_seed(0)
    output = torch.randn(_SAMPLES, *meaning.shape(_TAP, outputs), requires_grad=True)
    if targets is None:
        targets = torch.arange(_SAMPLES) % _OUTPUTS if meaning.classes else torch.rand(_SAMPLES)
    loss = meaning.loss(output, targets)
    assert loss.shape == (), f"its loss has the shape {tuple(loss.shape)}, and is one number"
    loss.backward()
    assert output.grad is not None and output.grad.abs().sum() > 0, "its loss has no gradient"  # noqa: PT018
    output = output.detach()
    each = meaning.losses(output, targets)
    assert each.shape == (_SAMPLES,), f"its losses have the shape {tuple(each.shape)}"
    assert torch.allclose(each.mean(), loss.detach(), atol=1e-5), "its loss is not the mean of its losses"
    kept, before = meaning.keep(output), meaning.keep(torch.randn_like(output))
    assert kept.shape == (_SAMPLES, outputs), f"what it keeps has the shape {tuple(kept.shape)}"
    assert meaning.scores, "it has no kind of score"
    for kind in meaning.scores:
        for previous in (None, before):
            score = meaning.score(kind, kept, previous)
            assert score.shape == (_SAMPLES,), f"its score {kind} has the shape {tuple(score.shape)}"
            assert bool(((score >= 0) & (score <= 1)).all()), f"its score {kind} leaves 0 to 1"
    for name, found in (("answer", meaning.answer(kept)), ("quality", meaning.quality(kept, targets))):
        assert found.shape == (_SAMPLES,), f"its {name} has the shape {tuple(found.shape)}"
    stacked = torch.stack([kept, before])
    mean = meaning.ensemble(stacked, torch.full((2,), 0.5), torch.zeros(()))
    for name, found in (("ensemble", mean), ("product", meaning.product(stacked))):
        assert found.shape == kept.shape, f"its {name} has the shape {tuple(found.shape)}"
    same = meaning.ensemble(torch.stack([kept, kept]), torch.full((2,), 0.5), torch.zeros(()))
    assert torch.allclose(meaning.answer(same), meaning.answer(kept)), "two exits that agree answer otherwise together"
    taught = meaning.taught(targets, output, 0.5, 1.0)
    assert len(taught) == _SAMPLES, "its soft targets are not one for each sample"
    assert float(meaning.distillation(output, output, 2.0)) < 1e-5, "an output is far from itself"
    if meaning.classes:
        sums = meaning.probabilities(kept).sum(1)
        assert torch.allclose(sums, torch.ones(_SAMPLES), atol=1e-5), "its probabilities do not sum to 1"
