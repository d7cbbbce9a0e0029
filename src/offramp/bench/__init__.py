"""Measuring: the static backbone and the dynamic model in turn, seconds of each part in a runtime, peak memory.

What measures exported files stands in ``offramp.bench.file``, which needs an extra.
"""

from offramp.bench.measure import Measurement, macs_speedup, measure
from offramp.bench.memory import peak_memory
from offramp.bench.profile import profile_file, profile_in
from offramp.bench.rows import bench_forced, bench_policy, expected_shares, spaced, timed_rows

__all__ = [
    "Measurement",
    "bench_forced",
    "bench_policy",
    "expected_shares",
    "macs_speedup",
    "measure",
    "peak_memory",
    "profile_file",
    "profile_in",
    "spaced",
    "timed_rows",
]
