"""The engine: one compaction loop over any runtime, and what stands on it."""

from offramp.engine.anytime import anytime
from offramp.engine.deadline import run_until
from offramp.engine.loop import Runtime, run_policy
from offramp.engine.measure import Measurement, macs_speedup, measure
from offramp.engine.run import run
from offramp.engine.tabulate import tabulate
from offramp.engine.torch import TorchRuntime

__all__ = [
    "Measurement",
    "Runtime",
    "TorchRuntime",
    "anytime",
    "macs_speedup",
    "measure",
    "run",
    "run_policy",
    "run_until",
    "tabulate",
]
