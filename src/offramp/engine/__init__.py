"""The engine: one compaction loop over any runtime, and what stands on it."""

from offramp.engine.anytime import anytime
from offramp.engine.deadline import run_until
from offramp.engine.loop import Answered, Arrived, Cohort, Segments, Walk, advance, arrive, enter, run_policy
from offramp.engine.pieces import RuntimeInPieces
from offramp.engine.run import run
from offramp.engine.runtime import FileRuntime, Runtime, Session, open_runtime
from offramp.engine.tabulate import tabulate, tabulate_file, tabulate_in
from offramp.engine.torch import TorchRuntime, TorchSegments

__all__ = [
    "Answered",
    "Arrived",
    "Cohort",
    "FileRuntime",
    "Runtime",
    "RuntimeInPieces",
    "Segments",
    "Session",
    "TorchRuntime",
    "TorchSegments",
    "Walk",
    "advance",
    "anytime",
    "arrive",
    "enter",
    "open_runtime",
    "run",
    "run_policy",
    "run_until",
    "tabulate",
    "tabulate_file",
    "tabulate_in",
]
