"""Every name that a user can say, in tables of one line each; nothing is imported before it is used."""

from offramp.registry._parts import check_packages, packages, register
from offramp.registry._table import Entry, Table, unknown
from offramp.registry._tables import (
    BACKBONES,
    HEADS,
    INPUTS,
    LINKS,
    MODELS,
    OBJECTIVES,
    PATHS,
    POLICIES,
    ROUTERS,
    RUNTIMES,
    TABLES,
    TASKS,
    WEIGHTINGS,
)

__all__ = [
    "BACKBONES",
    "HEADS",
    "INPUTS",
    "LINKS",
    "MODELS",
    "OBJECTIVES",
    "PATHS",
    "POLICIES",
    "ROUTERS",
    "RUNTIMES",
    "TABLES",
    "TASKS",
    "WEIGHTINGS",
    "Entry",
    "Table",
    "check_packages",
    "packages",
    "register",
    "unknown",
]
