"""Inputs: what one sample is, how a file becomes one, and how a sample becomes what a backbone reads.

A new kind is one file here and one line in ``offramp.registry.INPUTS``.
"""

from offramp.inputs._crops import cut
from offramp.inputs._input import Input, input_from_json, input_to_json
from offramp.inputs._labelled import Labelled
from offramp.inputs._one import OneTensor
from offramp.inputs.image import ImageInput
from offramp.inputs.log_mel import LogMelInput
from offramp.inputs.pair import Pair, PairInput
from offramp.inputs.points import Marked, PointsInput

__all__ = [
    "ImageInput",
    "Input",
    "Labelled",
    "LogMelInput",
    "Marked",
    "OneTensor",
    "Pair",
    "PairInput",
    "PointsInput",
    "cut",
    "input_from_json",
    "input_to_json",
]
