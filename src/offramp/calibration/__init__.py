"""Calibration: policies for a goal, from an exit table and a cost table, without a model; and watching a promise."""

from offramp.calibration.calibrate import calibrate
from offramp.calibration.columns import columns_of
from offramp.calibration.fit import fit_cascade, fit_ensemble, fit_gates, fit_maps, fit_scheduler
from offramp.calibration.monitor import Monitor, monitor
from offramp.calibration.risk import control
from offramp.calibration.search import Columns, Point, frontier
from offramp.calibration.temperature import fit_temperatures, halves

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
