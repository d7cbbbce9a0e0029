"""Policies that leave the earlier the more there is to do, all of them inside what one promise covers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from offramp.errors import UsageError
from offramp.policies import Policy
from offramp.policies.threshold import Threshold

_COVERS = ("ucb", "ltt")
"""Methods that test one threshold after the other from the highest down: what they promise, they promise of all that
they passed, at once."""


def ladder(policy: Policy, strictest: float, levels: int = 8) -> tuple[Threshold, ...]:
    """Policies from a high threshold down to the lowest that a promise covers, for ``Service``.

    The promise was tested at each of these thresholds. So whichever of them samples meet, it holds for them, as long as
    what there is to do depends on others and not on what the sample itself shows.

    Args:
        policy: thresholds that ``calibrate(..., risk=...)`` chose, by ``ucb`` or ``ltt``.
        strictest: the threshold where there is little to do, up to 1; it is taken up to the next that was tested.
        levels: how many policies.

    Returns:
        policies with falling thresholds, the last of them that of ``policy``; fewer where there are no more between.

    Raises:
        UsageError: a policy without such a promise, one that lets nobody leave, or a threshold outside.
    """
    promise = policy.provenance.get("guarantee", {}) if isinstance(policy, Threshold) else {}
    if not isinstance(policy, Threshold) or promise.get("method") not in _COVERS:
        raise UsageError(f"a ladder needs thresholds with a promise by {' or '.join(_COVERS)}: calibrate for a risk")
    shared = {*policy.thresholds}
    lowest = policy.thresholds[0] if len(shared) == 1 else None
    if lowest is None:
        raise UsageError("the promise is about one threshold for all exits that are on, and this policy has none")
    if not lowest <= strictest <= 1 or levels < 1:
        raise UsageError(f"a ladder goes from {lowest:g} up to at most 1, by one step or more, not to {strictest:g}")
    tested = np.linspace(*promise["grid"])
    own = tested[(tested >= lowest) & (tested <= tested[tested >= strictest].min())]
    places = np.unique(np.linspace(len(own) - 1, 0, levels).round().astype(int))
    return tuple(replace(policy, thresholds=(float(own[place]),) * len(policy.thresholds)) for place in places)
