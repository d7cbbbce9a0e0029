"""The application: its verbs, and how an error leaves it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from offramp.cli import (
    bench,
    calibrate,
    convert,
    demo,
    edge,
    evaluate,
    export,
    load,
    monitor,
    predict,
    push,
    serve,
    train,
)
from offramp.cli import list as list_names
from offramp.errors import Notice, OfframpError

app = typer.Typer(
    help="Vision models that stop computing as soon as they are sure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verb in (
    demo,
    train,
    evaluate,
    calibrate,
    predict,
    monitor,
    export,
    bench,
    serve,
    load,
    edge,
    convert,
    push,
    list_names,
):
    name = verb.__name__.rpartition(".")[2]
    app.command(name, epilog=f"Example: {verb.EXAMPLE}")(verb.command)


@contextmanager
def _notices() -> Iterator[None]:
    """Inside, each ``Notice`` is one line on stderr."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=Notice)
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                typer.echo(f"offramp: {message}", err=True)
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        yield


def main() -> None:
    """Run the command line; an expected error is one sentence on stderr and its exit code."""
    try:
        with _notices():
            app()
    except OfframpError as error:
        typer.echo(f"offramp: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        typer.echo(f"offramp: {error}", err=True)
        sys.exit(1)
