"""Calibration: policies for a goal, from an exit table and a cost table, without a model; and watching a promise."""

from offramp.calibration.calibrate import calibrate
from offramp.calibration.monitor import Monitor, monitor
from offramp.calibration.risk import control
from offramp.calibration.temperature import fit_temperatures, halves
from offramp.policies.cascade import fit_cascade
from offramp.policies.ensemble import fit_ensemble
from offramp.policies.gates import fit_gates
from offramp.policies.reliability import fit_maps
from offramp.policies.scheduler import fit_scheduler
from offramp.search import Columns
from offramp.search.columns import columns_of
from offramp.search.frontier import Point, frontier

__all__ = [
    "Columns",
    "Monitor",
    "Point",
    "calibrate",
    "columns_of",
    "control",
    "fit_cascade",
    "fit_ensemble",
    "fit_gates",
    "fit_maps",
    "fit_scheduler",
    "fit_temperatures",
    "frontier",
    "halves",
    "monitor",
]
