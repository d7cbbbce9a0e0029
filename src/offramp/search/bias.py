"""The bias of a router: how samples are spread over the paths where they may enter."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from offramp.search.columns import Columns
from offramp.search.cuts import best_cut


def enters(columns: Columns, bias: tuple[float, ...]) -> Tensor:
    """The path where each sample enters, ``(samples,)``: the first without a bias."""
    if not bias or columns.route is None:
        return torch.zeros(columns.scores.shape[1], dtype=torch.long)
    return (columns.route + torch.tensor(bias)).max(1).indices


def best_bias(columns: Columns, worth: Tensor, bias: tuple[float, ...]) -> tuple[float, ...]:
    """The bias with which the samples enter where it is worth most, one path after the other, given the others.

    That ends where no bias alone can be bettered, and where it began decides at which such point. So it is tried from
    the bias given and from one with which everybody enters the cheapest path, and the better is kept.

    Args:
        columns: what calibration reads, the router's word among it.
        worth: of entering at each path, ``(paths, samples)``.
        bias: where to begin.
    """
    assert columns.route is not None
    said = columns.route.double()
    nobody = (0.0, *(_just_below(said[:, path] - said[:, 0]) for path in range(1, len(bias))))
    tried = [_each_in_turn(said, worth, nobody, start) for start in dict.fromkeys((bias, nobody))]
    return max(tried, key=lambda found: float(worth.gather(0, enters(columns, found)[None]).sum()))


def _each_in_turn(said: Tensor, worth: Tensor, nobody: tuple[float, ...], bias: tuple[float, ...]) -> tuple[float, ...]:
    found = list(bias)
    for path in range(1, len(found)):
        shifted = said + torch.tensor(found, dtype=torch.float64)
        shifted[:, path] = -torch.inf
        other, where = shifted.max(1)
        lead = said[:, path] - other  # it is chosen where this is above −bias
        gain = worth[path] - worth.gather(0, where[None])[0]
        cut, earned = best_cut(lead, gain, lead.argsort(descending=True), everybody=float(lead.min()) - 1)
        # who earns nothing must not take what others give up later, so its bias is lower than this turn asks
        found[path] = float(np.float32(-cut)) if earned > 0 else nobody[path]
    return tuple(found)


def _just_below(lead: Tensor) -> float:
    """The bias with which a path is nobody's choice over the cheapest."""
    return float(np.float32(-float(lead.max()) - 1))
