"""Progress on stderr, so that stdout holds results only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


@contextmanager
def progress_bar(what: str, total: int, done: int = 0, show: bool = True) -> Iterator[Callable[..., None]]:
    """A bar; call what it yields with the number done and a note."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(what, total=total, completed=done, note="")

        def update(n: int, note: str = "") -> None:
            bar.update(task, completed=n, note=note)

        yield update


def track(items: Iterable[T], what: str, total: int, show: bool = True) -> Iterator[T]:
    """The items, with a bar that moves as they are taken."""
    with progress_bar(what, total, show=show) as bar:
        for n, item in enumerate(items, start=1):
            yield item
            bar(n)
