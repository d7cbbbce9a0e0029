"""A backbone with exits: all outputs, never a decision."""

from offramp.model._attach import attach
from offramp.model._model import EarlyExitModel
from offramp.model._modes import evaluating

__all__ = ["EarlyExitModel", "attach", "evaluating"]
