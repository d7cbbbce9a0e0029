"""Parts of other people: giving them names, and what an artifact with them needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from offramp.errors import UsageError
from offramp.registry._table import OWN, unknown
from offramp.registry._tables import TABLES

T = TypeVar("T")


def packages(names: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """For names in tables (``{"heads": ["mine"], …}``) the packages that they come from, Offramp's own left out."""
    found = {
        group: {name: TABLES[group][name].package for name in used if TABLES[group][name].package != OWN}
        for group, used in names.items()
    }
    return {group: brought for group, brought in found.items() if brought}


def check_packages(needed: Any) -> None:
    """Raise ``UsageError`` for a name that ``packages`` found and that is not known here."""
    for group, names in needed.items() if isinstance(needed, dict) else ():
        for name, package in names.items() if isinstance(names, dict) and group in TABLES else ():
            if name not in TABLES[group]:
                raise UsageError(
                    f"the {TABLES[group].kind} {name!r} is of the package {package!r}, which is not installed (or "
                    "not imported, where it registers its parts when it is)"
                )


def register(kind: str, name: str, *, about: str | None = None, paper: str = "") -> Callable[[T], T]:
    """Give a part of your own a name, which recipes, lists, artifacts and exported files then know.

    ::

        @offramp.register("head", "mine")
        class Mine(nn.Module): ...

    A name lasts as long as the process: a script that loads a model with it imports the module that registers it
    first. A package that is installed announces its parts by entry points instead (``Table``).

    Args:
        kind: ``head``, ``policy``, ``objective``, ``weighting``, ``runtime``, ``task`` or ``input``.
        name: the name.
        about: one sentence for ``offramp list``; the first line of the docstring if not given.
        paper: where it is from.

    Raises:
        UsageError: an unknown kind, or a name that something else has.
    """
    tables = {table.kind: table for table in TABLES.values() if table.group is not None}
    if kind not in tables:
        raise UsageError(unknown("kind of part", kind, tables))

    def add(target: T) -> T:
        said = (target.__doc__ or "").strip().partition("\n")[0] if about is None else about
        tables[kind].add(name, target, said, paper)
        return target

    return add
