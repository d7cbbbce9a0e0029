"""The perceptron that the seven heads of *Multi-Exit Vision Transformer* (2106.15183) end in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import nn

HIDDEN, ACTIVATION, DROPOUT = (256, 256), "elu", 0.5
"""As the paper's heads have them."""
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"elu": nn.ELU, "gelu": nn.GELU, "relu": nn.ReLU}


def perceptron(width: int, num_outputs: int, hidden: Sequence[int], activation: str, dropout: float) -> nn.Module:
    """Hidden layers, each followed by an activation and dropout, and a classifier: ``(B, width)`` to an output.

    Kernels start normal with a variance of 2 ÷ width in, biases at 0, as the paper's do. Without hidden layers it is
    one linear layer that starts as torch's do.

    Args:
        width: of what it reads.
        num_outputs: the number of outputs.
        hidden: units of each hidden layer.
        activation: ``elu``, ``gelu`` or ``relu``.
        dropout: the probability of dropping a hidden unit in training.

    Raises:
        TypeError: an unknown activation, or hidden layers that are no whole numbers above 0.
    """
    if activation not in _ACTIVATIONS:
        raise TypeError(f"activation is {activation!r}; it is {', '.join(map(repr, _ACTIVATIONS))}")
    if not all(type(units) is int and units > 0 for units in hidden):
        raise TypeError(f"hidden is {hidden!r}; it is a list of units, one whole number a layer")
    if not hidden:
        return nn.Linear(width, num_outputs)
    layers: list[nn.Module] = []
    for units_in, units_out in pairwise((width, *hidden)):
        layers += [nn.Linear(units_in, units_out), _ACTIVATIONS[activation](), nn.Dropout(dropout)]
    layers.append(nn.Linear(hidden[-1], num_outputs))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
