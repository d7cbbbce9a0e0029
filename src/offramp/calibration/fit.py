"""What learned policies learn, from a table: ensembles, cascades, maps, gates, EENet's scheduler. It takes seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from offramp.calibration.budget import exit_distribution, quota_thresholds
from offramp.calibration.search import Columns
from offramp.errors import UsageError
from offramp.policies.cascade import Cascade, heard
from offramp.policies.ensemble import Ensemble
from offramp.policies.gates import FEATURES, Gates, Scheduler, features
from offramp.policies.reliability import Map
from offramp.tasks import Task, get_task
from offramp.types import ExitTable

_POINTS = 64


def fit_ensemble(table: ExitTable, heads: Sequence[int], task: str | Task | None = None, steps: int = 100) -> Ensemble:
    """Weights and biases of an ensemble by the loss of its answers (Zero Time Waste, 2106.05409).

    As in the paper weights are exponentials, so that none is negative; they begin as a plain mean. The thresholds are
    1: choose them afterwards.

    Args:
        table: outputs on held-out data.
        heads: the indices of the exits that are asked.
        task: what an output means.
        steps: of the optimiser.
    """
    meaning = get_task(table.task if task is None else task)
    weights: list[tuple[float, ...]] = []
    biases: list[tuple[float, ...]] = []
    for k in range(len(heads)):
        outputs = table.outputs[list(heads[: k + 1])]
        logs = torch.full((k + 1,), -np.log(k + 1), requires_grad=True)
        bias = torch.zeros(outputs.shape[2], requires_grad=True)
        optimizer = torch.optim.Adam([logs, bias], lr=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            meaning.loss(meaning.ensemble(outputs, logs.exp(), bias), table.targets).backward()
            optimizer.step()
        weights.append(tuple(logs.detach().exp().tolist()))
        biases.append(tuple(bias.detach().tolist()))
    return Ensemble((1.0,) * len(heads), tuple(heads), tuple(weights), tuple(biases), meaning.scores[0])


def fit_cascade(table: ExitTable, heads: Sequence[int], task: str | Task | None = None, steps: int = 100) -> Cascade:
    """Links of a cascade, one exit after the other, by the loss of its answers (Zero Time Waste, 2106.05409).

    Each link begins at 0, where an exit answers for itself, and is held there by a small penalty on its squares: it has
    num_outputs² numbers, which a small table could be learned by heart with. The thresholds are 1: choose them
    afterwards.

    Args:
        table: outputs on held-out data.
        heads: the indices of the exits that are asked.
        task: what an output means.
        steps: of the optimiser.
    """
    meaning = get_task(table.task if task is None else task)
    links = []
    together = table.outputs[heads[0]].float()
    for head in heads[1:]:
        own, before = table.outputs[head].float(), heard(together)
        link = torch.zeros(own.shape[1], own.shape[1], requires_grad=True)
        optimizer = torch.optim.Adam([link], lr=0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            penalty = 1e-3 * link.square().sum()
            (meaning.loss(own + before @ link.T, table.targets) + penalty).backward()
            optimizer.step()
        together = own + before @ link.detach().T
        links.append(tuple(tuple(row) for row in link.detach().tolist()))
    return Cascade((1.0,) * len(heads), tuple(heads), tuple(links), meaning.scores[0])


def fit_maps(columns: Columns) -> tuple[Map, ...]:
    """For each early exit a rising map from its score to the quality it had there (PCEE, 2412.19325).

    Monotone regression, thinned to 64 points.

    Args:
        columns: what calibration reads; quality must lie between 0 and 1.

    Raises:
        UsageError: quality that is no share.
    """
    if float(columns.quality.min()) < 0 or float(columns.quality.max()) > 1:
        raise UsageError("maps from score to accuracy need answers that are right or wrong")
    maps = []
    for scores, quality in zip(columns.scores.numpy(), columns.quality.numpy(), strict=False):
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, quality)
        places = np.unique(np.quantile(fitted.X_thresholds_, np.linspace(0, 1, _POINTS)))
        maps.append((tuple(places.tolist()), tuple(fitted.predict(places).tolist())))
    return tuple(maps)


def fit_gates(
    table: ExitTable, columns: Columns, heads: Sequence[int], price: float, task: str | Task | None = None
) -> Gates:
    """Logistic gates (JEI-DNN, 2310.09163), heads frozen.

    A sample's best exit is where its cross-entropy + ``price`` · cost / static cost is least; a gate learns whether its
    exit is that one or lies behind it. The paper trains gates and heads in turn, and weights samples that may leave;
    heads are left as they are here, and all samples weigh alike.

    Args:
        table: outputs on held-out data.
        columns: what calibration reads of it.
        heads: the indices of the exits that are asked.
        price: of cost; the higher, the earlier samples leave.
        task: what an output means.

    Raises:
        UsageError: a task without the scores that a gate reads.
    """
    meaning = get_task(table.task if task is None else task)
    rows = [*heads, len(table.outputs) - 1]
    previous = [None, *table.outputs[list(heads)]]
    looks = [
        torch.stack([meaning.score(kind, table.outputs[head], before) for kind in FEATURES], 1).double().numpy()
        for head, before in zip(heads, previous, strict=False)
    ]
    spent = torch.tensor(_to_exit(columns, heads), dtype=torch.float64)
    wrong = torch.stack([functional.cross_entropy(table.outputs[row], table.targets, reduction="none") for row in rows])
    best = (wrong + price * (spent / columns.static)[:, None]).argmin(0)
    weights: list[tuple[float, ...]] = []
    biases: list[float] = []
    for k, x in enumerate(looks):
        label = (best <= k).numpy()
        if label.all() or not label.any():
            weights.append((0.0,) * len(FEATURES))
            biases.append(20.0 if label.all() else -20.0)
        else:
            gate = LogisticRegression(C=100.0, max_iter=500).fit(x, label)
            weights.append(tuple(gate.coef_[0].tolist()))
            biases.append(float(gate.intercept_[0]))
    return Gates(tuple(weights), tuple(biases), tuple(heads), meaning.scores[0])


def fit_scheduler(
    table: ExitTable,
    columns: Columns,
    heads: Sequence[int],
    budget: float,
    task: str | Task | None = None,
    steps: int = 200,
) -> Scheduler:
    """EENet's scores and thresholds for a mean cost (2301.07099), trained on a table.

    Each exit's score predicts being right (binary cross-entropy, weighted with the assignment); a second linear map
    assigns samples to exits, pulled towards the scores and towards the budget. Thresholds are set so that each exit
    gets the share that was assigned to it, rescaled to the budget by MSDNet's rule where they miss it. Weights of the
    three parts of the loss (1, 0.1, 10) and the sharpness of the target (2) are our choice.

    Args:
        table: outputs on held-out data.
        columns: what calibration reads of it.
        heads: the indices of the exits that are asked.
        budget: mean cost of a sample, in the unit of the columns.
        task: what an output means.
        steps: of the optimiser.
    """
    meaning = get_task(table.task if task is None else task)
    seen = [features(meaning, table.outputs[head]).float() for head in heads]
    right = columns.quality[list(heads)].float()
    spent = torch.tensor(_to_exit(columns, heads), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.zeros(x.shape[1] + k) for k, x in enumerate(seen)]
    for weight, x in zip(maps, seen, strict=True):
        weight[x.shape[1] - 2] = 1.0  # begin as the largest probability
    biases = [torch.zeros(()) for _ in heads]
    assign = [0.01 * torch.randn(x.shape[1] + k, generator=generator) for k, x in enumerate(seen)]
    last = torch.zeros(())
    learned = [p.requires_grad_() for p in (*maps, *biases, *assign, last)]
    optimizer = torch.optim.Adam(learned, lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        scores, rests = _scores(seen, maps, biases)
        rows = [rest @ a for rest, a in zip(rests, assign, strict=True)]
        shares = torch.stack([*rows, last.expand(len(table))], 1).softmax(1)
        weight = shares[:, :-1].detach() * len(heads)
        own = functional.binary_cross_entropy(scores.clamp(1e-4, 1 - 1e-4), right.T, weight)
        target = torch.cat([scores.detach() ** 2, torch.full((len(table), 1), 0.5)], 1)
        target = target / target.sum(1, keepdim=True)
        follow = functional.kl_div(shares.clamp_min(1e-9).log(), target, reduction="batchmean")
        missed = (shares.mean(0) @ spent - budget).abs() / budget
        (own + 0.1 * follow + 10 * missed).backward()
        optimizer.step()
    with torch.no_grad():
        scores, rests = _scores(seen, maps, biases)
        rows = [rest @ a for rest, a in zip(rests, assign, strict=True)]
        quotas = torch.stack([*rows, last.expand(len(table))], 1).softmax(1).mean(0)
        if abs(float(quotas @ spent) / budget - 1) > 0.02:
            quotas = torch.tensor(exit_distribution(_only(columns, heads), budget))
    thresholds = quota_thresholds(scores.T.double(), tuple(quotas.tolist()))
    plain = [tuple(m.detach().tolist()) for m in maps]
    return Scheduler(
        thresholds, tuple(plain), tuple(float(b.detach()) for b in biases), tuple(heads), meaning.scores[0]
    )


def _scores(seen: Sequence[Tensor], maps: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    scores: list[Tensor] = []
    rests = []
    for x, weight, bias in zip(seen, maps, biases, strict=True):
        rest = torch.cat([x, *(s.detach()[:, None] for s in scores)], 1)
        rests.append(rest)
        scores.append((rest @ weight + bias).clamp(0, 1))
    return torch.stack(scores, 1), rests


def _to_exit(columns: Columns, heads: Sequence[int]) -> list[float]:
    spent, costs = 0.0, []
    for k, segment in enumerate(columns.segments):
        spent += segment + (columns.heads[k] if k in heads else 0)
        if k in heads or k == len(columns.heads):
            costs.append(spent)
    return costs


def _only(columns: Columns, heads: Sequence[int]) -> Columns:
    """The columns of a model that has only some of the early exits."""
    costs = _to_exit(columns, heads)
    kept = tuple(columns.heads[k] for k in heads)
    spent = [cost - sum(kept[: k + 1]) for k, cost in enumerate(costs)]
    segments = tuple(b - a for a, b in zip([0.0, *spent[:-1]], spent, strict=True))
    rows = [*heads, len(columns.quality) - 1]
    return Columns(columns.scores[list(heads)], columns.quality[rows], segments, kept)
