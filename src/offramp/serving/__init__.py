"""Serving under deadlines: who is computed next, and answers that are never late for want of depth."""

from offramp.serving.answer import Answer, Refused
from offramp.serving.ladder import ladder
from offramp.serving.line import Line
from offramp.serving.scheduler import Job, Scheduler
from offramp.serving.service import Service
from offramp.serving.simulator import Log, simulate

__all__ = ["Answer", "Job", "Line", "Log", "Refused", "Scheduler", "Service", "ladder", "simulate"]
