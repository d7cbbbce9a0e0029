"""The engine: one compaction loop over any runtime, and what stands on it."""

from offramp.engine.anytime import anytime
from offramp.engine.deadline import run_until
from offramp.engine.loop import Answered, Cohort, Stages, advance, enter, run_policy
from offramp.engine.measure import Measurement, macs_speedup, measure
from offramp.engine.memory import peak_memory
from offramp.engine.profile import profile_file, profile_in
from offramp.engine.run import run
from offramp.engine.runtime import FileRuntime, Runtime, Session, open_runtime
from offramp.engine.tabulate import tabulate, tabulate_file, tabulate_in
from offramp.engine.torch import TorchRuntime, TorchStages

__all__ = [
    "Answered",
    "Cohort",
    "FileRuntime",
    "Measurement",
    "Runtime",
    "Session",
    "Stages",
    "TorchRuntime",
    "TorchStages",
    "advance",
    "anytime",
    "enter",
    "macs_speedup",
    "measure",
    "open_runtime",
    "peak_memory",
    "profile_file",
    "profile_in",
    "run",
    "run_policy",
    "run_until",
    "tabulate",
    "tabulate_file",
    "tabulate_in",
]
