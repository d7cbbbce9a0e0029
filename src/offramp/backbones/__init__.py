"""Backbones: timm models cut into stem, steps and final classifier, calling timm's own modules.

A family is one file here and one line in ``offramp.registry.BACKBONES``; it says which models it can cut.
"""

from offramp.backbones._cut import Backbone, cut
from offramp.backbones._maps import input_size
from offramp.backbones._norms import layer_norm_eps, set_layer_norm_eps
from offramp.backbones._weights import read_checkpoint
from offramp.backbones.side import SideEncoder

__all__ = [
    "Backbone",
    "SideEncoder",
    "cut",
    "input_size",
    "layer_norm_eps",
    "read_checkpoint",
    "set_layer_norm_eps",
]
