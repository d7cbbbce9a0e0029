"""What a transform gives that changes the target with the sample."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from offramp._batches import Inputs


class Labelled(NamedTuple):
    """A prepared sample with its target, in place of the target that the sample had.

    Args:
        inputs: without a batch dimension.
        target: the same.
    """

    inputs: Inputs
    target: Tensor
