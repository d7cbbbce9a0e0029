"""What every objective keeps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from offramp.data import Prepared, Samples
from offramp.model import EarlyExitModel, attach
from offramp.registry import OBJECTIVES
from offramp.testing._small import squares, tiny_vit
from offramp.training import Batch, Stage, train
from offramp.training.objective import Objective
from offramp.types import Exit

_EXITS = (
    Exit(1, "lph"),
    Exit(2, "lph", {"depthwise": False}),
    Exit(2),
    Exit(3, "gah"),
    Exit(3, "gah", {"stride": 3}),
)


def check_objective(
    objective: str | Any, folder: str | Path | None = None, model: EarlyExitModel | None = None
) -> None:
    """Check that an objective learns, and that what it says is frozen does not move by one bit.

    Args:
        objective: a name, a class, or the objective or plan itself.
        folder: for the runs; one that is removed afterwards if not given.
        model: what to train, for ``testing._small.squares``, if not a small model of one path.

    Raises:
        AssertionError: the sentence says what is broken.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as place:
            return check_objective(objective, place, model)
    found = OBJECTIVES.resolve(objective)
    goal = found() if isinstance(found, type) else found
    samples, model = squares(64), _model() if model is None else model
    stages = goal.stages(model, samples, Path(folder)) if hasattr(goal, "stages") else [Stage(goal)]
    for number, stage in enumerate(stages):
        _check_stage(model, stage, stage.samples or samples, Path(folder) / str(number), first=number == 0)


def _model() -> EarlyExitModel:
    torch.manual_seed(0)
    vit = tiny_vit(4, class_token=False, global_pool="avg", drop_rate=0.1, drop_path_rate=0.1)
    return attach(vit, _EXITS).eval()


def _check_stage(model: EarlyExitModel, stage: Stage, samples: Samples, folder: Path, first: bool) -> None:
    trained = {id(p) for p in stage.objective.trained(model)}
    assert trained, "it trains nothing"
    frozen = {k: p.detach().clone() for k, p in model.named_parameters() if id(p) not in trained}
    moving = _statistics_of(model, trained)
    buffers = {k: b.clone() for k, b in model.named_buffers() if k not in moving}
    before = _loss(stage.objective, model, samples)
    train(
        model,
        samples,
        stage.objective,
        folder=folder,
        epochs=15,
        batch_size=32,
        learning_rate=1e-2,
        precision="fp32",
        device="cpu",
    )
    after = _loss(stage.objective, model, samples)
    assert after < (0.9 if first else 1.0) * before, f"its loss was {before:.3f} and is {after:.3f} after 30 steps"
    now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in {**frozen, **buffers}.items():
        assert torch.equal(now[name], value), f"{name} has moved, and is not trained"
    assert all(p.requires_grad for p in model.parameters()), "parameters ask for no gradient afterwards"
    assert not model.training, "the model is in training mode afterwards"


def _loss(objective: Objective, model: EarlyExitModel, samples: Samples) -> float:
    """The mean over an even and an odd step, which some objectives tell apart."""
    dataset = Prepared(samples, model.input)
    x = torch.stack([dataset[i][0] for i in range(len(dataset))])
    with torch.no_grad():
        values = [objective(model, Batch(x, torch.as_tensor(samples.targets), step))["loss"] for step in (0, 1)]
    return float(sum(values)) / 2


def _statistics_of(model: EarlyExitModel, trained: set[int]) -> set[str]:
    """The buffers of modules whose parameters learn."""
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if any(id(p) in trained for p in module.parameters(recurse=False))
        for name, _ in module.named_buffers(recurse=False)
    }
