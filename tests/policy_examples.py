"""Examples of every policy of the table, for every task that it knows; contract tests run over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from helpers import spread_thresholds
from torch import Tensor

from offramp.policies import Policy
from offramp.policies.cascade import Cascade
from offramp.policies.ensemble import Ensemble
from offramp.policies.expected_error import ExpectedError
from offramp.policies.forced import Forced
from offramp.policies.gates import Gates
from offramp.policies.patience import Patience, PatientConfident
from offramp.policies.reliability import Reliability
from offramp.policies.scheduler import Scheduler
from offramp.policies.threshold import Threshold
from offramp.policies.vote import Vote

LINK = tuple(tuple(0.2 if i == j else -0.1 for j in range(5)) for i in range(5))
NO_MIDDLE = ("ensemble", "cascade", "scheduler")
"""Policies that need what every exit before said, so that nobody can enter in the middle."""
Make = Callable[[Tensor], Policy]


def examples(model, x) -> dict[str, list[Make]]:
    """For each policy functions from row numbers to the policy for these rows; none where it is not for this task."""
    return (_classes if model.num_outputs > 1 else _numbers)(spread_thresholds(model, x))


def _classes(thresholds) -> dict[str, list[Make]]:
    first, second, third = thresholds
    return {
        "threshold": [
            lambda rows: Threshold((first, second, third)),
            lambda rows: Threshold((None, second, None)),
            lambda rows: Threshold((0.3, 0.3, 0.3), "margin", (2.0, 1.0, 0.5, 1.0)),
            lambda rows: Threshold((None, None, None)),
        ],
        "patience": [lambda rows: Patience(1, (0, 1, 2)), lambda rows: Patience(1, (0, 2))],
        "patient-confident": [lambda rows: PatientConfident(2, sorted((first, second, third))[1] - 0.05, (0, 1, 2))],
        "vote": [lambda rows: Vote(2, (0, 1, 2)), lambda rows: Vote(2, (1, 2))],
        "ensemble": [
            lambda rows: Ensemble((first, second, third), (0, 1, 2)),
            lambda rows: Ensemble((first, 0.9), (0, 2), ((1.0,), (0.2, 1.5)), ((0.0,) * 5, (0.0, 1, 0, 0, 0))),
        ],
        "cascade": [
            lambda rows: Cascade((first, second, third), (0, 1, 2), (LINK, LINK)),
            lambda rows: Cascade((0.3, 0.1), (0, 2), (LINK,), "margin"),
        ],
        "reliability": [
            lambda rows: Reliability(0.6, (0, 1), (((0.2, first, 1.0), (0.1, 0.6, 1.0)), ((0.3, second), (0.2, 0.6)))),
        ],
        "gates": [
            lambda rows: Gates(
                ((20.0, 0, 0, 0), (20.0, 0, 1, 0), (20.0, 1, 0, 1)),
                (-20.0 * first, -20.0 * second, -20.0 * third),
                (0, 1, 2),
            )
        ],
        "scheduler": [
            lambda rows: Scheduler(
                (first, None, third),
                ((0.0,) * 5 + (1.0, 0.0), (0.1,) * 8, (0.0,) * 5 + (0.9, 0.0, 0.1, 0.1)),
                (0.0, 0.0, -0.02),
                (0, 1, 2),
            ),
        ],
        "expected-error": [],
        "forced": [lambda rows: Forced(tuple((rows % 4).tolist()), 3)],
    }


def middle(change):
    """Weights that expect an error of a half where two exits in a row are so far apart."""
    return (math.log(0.5) - math.log1p(change), 0.0, 1.0)


def _numbers(thresholds) -> dict[str, list[Make]]:
    _, second, third = thresholds  # the first exit has nothing to agree with
    how = "change"
    half = torch.tensor([second, third]).median().item()
    near, nearer = 1 / second - 1, 1 / third - 1  # so far apart are two exits in a row
    among = 2 / (1 + 1 / second)  # the mean of two moves half as far
    return {
        "threshold": [
            lambda rows: Threshold((1.0, second, third), how),
            lambda rows: Threshold((0.5, None, half), how),
            lambda rows: Threshold((None, None, None), how),
        ],
        "patience": [lambda rows: Patience(1, (0, 1, 2), near, how), lambda rows: Patience(1, (1, 2), nearer, how)],
        "patient-confident": [lambda rows: PatientConfident(1, half, (0, 1, 2), how)],
        "vote": [lambda rows: Vote(2, (0, 1, 2), near, how), lambda rows: Vote(2, (1, 2), nearer, how)],
        "ensemble": [
            lambda rows: Ensemble((0.5, among, third), (0, 1, 2), score=how),
            lambda rows: Ensemble((0.5, 0.5), (0, 2), ((1.0,), (0.2, 1.5)), ((0.0,), (0.3,)), how),
        ],
        "cascade": [lambda rows: Cascade((0.5, second, third), (0, 1, 2), (((0.0,),), ((-0.1,),)), how)],
        "reliability": [
            lambda rows: Reliability(0.6, (0, 1), (((0.2, 1.0), (0.1, 0.5)), ((half / 2, half), (0.2, 0.6))), how),
        ],
        "gates": [],
        "scheduler": [],
        "expected-error": [
            lambda rows: ExpectedError(0.5, (0, 1, 2), ((5.0, 0.0, 0.0), middle(near), middle(nearer))),
            lambda rows: ExpectedError(0.5, (1,), (middle(near),)),
        ],
        "forced": [lambda rows: Forced(tuple((rows % 4).tolist()), 3, how)],
    }
