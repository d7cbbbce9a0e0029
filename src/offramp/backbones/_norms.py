"""The eps of LayerNorms, which timm's arguments cannot say in plain values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn


def layer_norm_eps(model: nn.Module) -> dict[str, float]:
    """The eps of every LayerNorm of a model: the commonest under ``""``, any other under the norm's path."""
    found = {name: float(norm.eps) for name, norm in _norms(model).items()}
    if not found:
        return {}
    commonest = Counter(found.values()).most_common(1)[0][0]
    return {"": commonest, **{name: eps for name, eps in found.items() if eps != commonest}}


def set_layer_norm_eps(model: nn.Module, eps: Mapping[str, Any]) -> None:
    """Give a model's LayerNorms the eps that ``layer_norm_eps`` returned; an empty mapping leaves them as they are.

    Raises:
        ValueError: no finite number above 0, or a path at which the model has no LayerNorm.
    """
    norms = _norms(model)
    for path, value in eps.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"the eps of a LayerNorm is a number above 0, not {value!r}")
        if path and path not in norms:
            raise ValueError(f"there is no LayerNorm at {path!r}")
    for name, norm in norms.items():
        norm.eps = float(eps.get(name, eps.get("", norm.eps)))


def _norms(model: nn.Module) -> dict[str, nn.LayerNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
