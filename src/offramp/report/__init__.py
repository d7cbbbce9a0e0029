"""Reports: they read tables and traces only."""

from offramp.report.evaluation import evaluate_table
from offramp.report.frontier import draw_frontier
from offramp.report.intervals import bootstrap_interval
from offramp.report.quality import exit_quality

__all__ = ["bootstrap_interval", "draw_frontier", "evaluate_table", "exit_quality"]
