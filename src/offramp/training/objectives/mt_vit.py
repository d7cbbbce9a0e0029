"""MT-ViT's training: all tails and the predictor together, end to end; or the predictor alone, from labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.cost import profile
from offramp.data import Samples, Stream, loader
from offramp.engine import tabulate
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.training.objective import Batch, Stage


class MTViT:
    """Tails, exits and router together; the choice is drawn by straight-through Gumbel-Softmax (2203.01587).

    Loss = the chosen path's loss + the mean loss of all exits of the chain + distillation from the longest path into
    the others' classifiers + ``cost`` · (expected MACs ÷ the longest path's − ``target``)² + ``balance`` · the
    divergence of the mean choice from an even one. The abstract names Gumbel-Softmax and the predictor; that all paths
    learn in every step, and all weights and the schedule, are our choice.

    Args:
        target: expected multiply-adds as a share of the longest path's.
        cost: weight of the cost term.
        balance: weight of the balance term; without it the router may send everybody one way.
        distillation: weight of distillation.
        temperature: of the choice at the first step.
        least: the lowest temperature.
        decay: by which the temperature is multiplied after each step.
        encoder: whether all learns; if not, the router alone does, on the encoder and the heads as they are.
    """

    def __init__(
        self,
        target: float = 0.5,
        cost: float = 1.0,
        balance: float = 0.1,
        distillation: float = 0.5,
        temperature: float = 5.0,
        least: float = 0.5,
        decay: float = 0.999,
        encoder: bool = True,
    ) -> None:
        self.target, self.cost, self.balance, self.distillation = target, cost, balance, distillation
        self.temperature, self.least, self.decay, self.encoder = temperature, least, decay, encoder
        self._shares: Tensor | None = None

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """Everything, or the router. Raises ``UsageError`` for a model without a router that learns."""
        router = _check_router(model)
        macs = profile(model, repeats=0).macs
        self._shares = torch.tensor([path.static / macs.static for path in macs.paths])
        return (model if self.encoder else router).parameters()

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The loss, and what it is made of."""
        assert self._shares is not None
        outputs, task = model(batch.inputs), model.task
        classifiers = [outputs[k] for k in model.chain.ends]
        said = model.route(batch.inputs)[0]
        heat = max(self.least, self.temperature * self.decay**batch.step)
        choice = functional.gumbel_softmax(said, heat, hard=True)
        chosen = torch.einsum("bp,pb...->b...", choice, torch.stack([o.float() for o in classifiers]))
        every = torch.stack([task.loss(output, batch.targets) for output in outputs]).mean()
        longest = classifiers[-1].detach()
        taught = torch.stack([task.distillation(output, longest, 1.0) for output in classifiers[:-1]]).mean()
        mean = probabilities(said).mean(0)
        spent = mean @ self._shares.to(mean)
        uneven = torch.special.xlogy(mean, mean).sum() + math.log(len(mean))
        own = task.loss(chosen, batch.targets)
        loss = own + every + self.distillation * taught
        loss = loss + self.cost * (spent - self.target) ** 2 + self.balance * uneven
        return {"loss": loss, "chosen": own, "exits": every, "distillation": taught, "macs": spent, "uneven": uneven}


class MTViTSupervised:
    """The router alone, from an exit table: for each sample the cheapest path whose classifier is right (2307.02092).

    Samples that no path gets right are to enter at the dearest. Nothing of the encoder is trained, and it runs once for
    the table. Labels come from the samples of the run: a model that knows them by heart calls all of them easy.
    """

    def stages(self, model: EarlyExitModel, samples: Samples | Stream, folder: Path) -> Sequence[Stage]:
        """One. Raises ``UsageError`` for a stream, which has no table, and a model without a router that learns."""
        _check_router(model)
        if isinstance(samples, Stream):
            raise UsageError("labels for a router come from a table of all samples, and a stream has none")
        table = tabulate(model, loader(samples, model.input))
        right = torch.stack([model.task.quality(table.of(k), table.targets) > 0 for k in table.chain.ends])
        right[-1] = True
        return [Stage(RouterLabels(), 1.0, replace(samples, targets=cheapest(right).numpy().astype(np.int64)))]


class RouterLabels:
    """The router learns the numbers of paths that the samples have as targets."""

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """The router."""
        return _check_router(model).parameters()

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of what the router says."""
        return {"loss": functional.cross_entropy(model.route(batch.inputs)[0], batch.targets)}


def cheapest(right: Tensor) -> Tensor:
    """The first path that is right for each sample, from bool ``(paths, samples)``."""
    return right.to(torch.uint8).max(0).indices


def probabilities(said: Tensor) -> Tensor:
    """What a router says ``(B, paths)`` as shares."""
    return said.softmax(1)


def _check_router(model: EarlyExitModel) -> nn.Module:
    if model.router is None or not any(True for _ in model.router.parameters()):
        raise UsageError("this trains a router: give the model one that learns (attach(tails=…, router='cnn'))")
    return model.router
