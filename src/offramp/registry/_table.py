"""A table of names: Offramp's own, those of installed packages, and those that were registered."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from offramp.errors import UsageError

OWN = "offramp"
"""The package whose parts need nothing beside Offramp."""


@dataclass(frozen=True)
class Entry:
    """One line of a table: where the object lives (``module:name``), the paper it is from, one sentence about it.

    Args:
        target: ``module:name``.
        about: one sentence.
        paper: arXiv numbers, or another name.
        package: what has to be installed for it, or, where it was registered by hand, the module that did so.
    """

    target: str
    about: str
    paper: str = ""
    package: str = OWN

    def load(self) -> Any:
        """Import the object. Raises ``UsageError`` where a package announces what it does not have."""
        module, _, name = self.target.partition(":")
        try:
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            if self.package == OWN:
                raise
            raise UsageError(f"{self.package} announces {self.target}, which cannot be imported: {error}") from error
        return found


class Table(Mapping[str, Entry]):
    """A table of names of one kind: Offramp's own, those of installed packages, and those that were registered.

    A package adds names by entry points of the group ``offramp.GROUP`` (``offramp.heads``, …), ``name =
    "module:object"``. They are read when a name is asked for that is not Offramp's own; nothing is imported until one
    is used.

    Args:
        kind: what one of them is called: ``head``, ``policy``, ….
        entries: Offramp's own.
        group: where packages announce theirs; None for a table that is closed.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry], group: str | None = None) -> None:
        self.kind, self.group = kind, group
        self._own = dict(entries)
        self._registered: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Entry:
        return self._own[name] if name in self._own else self._others()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._others()

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from self._others()

    def __len__(self) -> int:
        return len(self._own) + len(self._others())

    def add(self, name: str, target: Any, about: str, paper: str) -> None:
        """Register an object. Raises ``UsageError`` for a name that another one has."""
        path, module = _path(target), str(getattr(target, "__module__", None))
        if name in self and self[name].target != path:
            raise UsageError(f"the {self.kind} {name!r} is {self[name].target}: choose another name")
        self._own.setdefault(name, Entry(path, about, paper, module.partition(".")[0]))
        self._registered[name] = target

    def forget(self, name: str) -> None:
        """Take a name away that was registered in this process."""
        if name in self._registered:
            del self._registered[name], self._own[name]

    def resolve(self, name_or_object: Any) -> Any:
        """The object behind a name; an object is returned as it is. Raises ``UsageError`` for an unknown name."""
        if not isinstance(name_or_object, str):
            return name_or_object
        if name_or_object in self._registered:
            return self._registered[name_or_object]
        if name_or_object not in self:
            raise UsageError(unknown(self.kind, name_or_object, self))
        return self[name_or_object].load()

    def name_of(self, target: Any) -> str | None:
        """The name that a class or function has in this table; None for one that is not in it."""
        path = _path(target)
        module = path.partition(".")[0].partition(":")[0]
        for name, entry in self.items():
            # a package may announce a shorter path than that of the module where the class stands
            other = entry.package != OWN and entry.target.partition(".")[0].partition(":")[0] == module
            if entry.target == path or (other and self.resolve(name) is target):
                return name
        return None

    def _others(self) -> Mapping[str, Entry]:
        found = {} if self.group is None else _announced(self.group)
        return {name: entry for name, entry in found.items() if name not in self._own}


@functools.cache
def _announced(group: str) -> Mapping[str, Entry]:
    """What the installed packages announce."""
    points = importlib.metadata.entry_points(group=f"offramp.{group}")
    return {
        point.name: Entry(point.value, f"of the package {package}", package=package)
        for point in points
        if (package := point.dist.name if point.dist is not None else point.module.partition(".")[0])
    }


def _path(target: Any) -> str:
    return f"{getattr(target, '__module__', None)}:{getattr(target, '__qualname__', None)}"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: the nearest match, and the names there are if they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    sentence = f"there is no {kind} {name!r}"
    if near:
        sentence += f"; did you mean {near[0]!r}?"
    if len(names) <= 40:
        sentence += f" Known: {', '.join(names)}."
    return sentence
