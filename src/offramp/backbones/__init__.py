"""Backbones: timm models cut into stem, steps and final classifier, calling timm's own modules.

A family is one file here and one line in ``offramp.registry.BACKBONES``; it says which models it can cut.
"""

from offramp.backbones._cut import Backbone, cut
from offramp.backbones._maps import input_size

__all__ = ["Backbone", "cut", "input_size"]
