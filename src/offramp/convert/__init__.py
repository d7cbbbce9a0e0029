"""Weights that exist: checkpoints of other projects as models of Offramp, by safe loading only."""

from offramp.convert._lgvit import lgvit

__all__ = ["lgvit"]
