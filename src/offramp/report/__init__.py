"""Reports: they read tables and traces only."""

from offramp.report.evaluation import evaluate_table
from offramp.report.intervals import bootstrap_interval

__all__ = ["bootstrap_interval", "evaluate_table"]
