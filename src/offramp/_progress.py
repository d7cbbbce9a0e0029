"""Progress on stderr, so that stdout holds results only: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

_SECONDS = 30.0
"""Between two lines in a log."""


def terminal() -> bool:
    """Whether somebody sees stderr as it is written."""
    return sys.stderr.isatty()


def say(line: str) -> None:
    """A line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress_bar(what: str, total: int, done: int = 0, show: bool = True) -> Iterator[Callable[..., None]]:
    """A bar, or where there is no terminal a line twice a minute; call what it yields with the number done, a note."""
    if show and not terminal():
        yield _lines(what, total)
        return
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(what, total=total, completed=done, note="")

        def update(n: int, note: str = "") -> None:
            bar.update(task, completed=n, note=note)

        yield update


def _lines(what: str, total: int) -> Callable[..., None]:
    last = time.monotonic()

    def update(n: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS:
            last = time.monotonic()
            say(f"{what}: {n} of {total}{f', {note}' if note else ''}")

    return update


def track(items: Iterable[T], what: str, total: int, show: bool = True) -> Iterator[T]:
    """The items, with a bar that moves as they are taken."""
    with progress_bar(what, total, show=show) as bar:
        for n, item in enumerate(items, start=1):
            yield item
            bar(n)
