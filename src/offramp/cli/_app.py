"""The application: its verbs, and how an error leaves it."""

from __future__ import annotations

import os
import sys

import typer

from offramp.cli import bench, calibrate, convert, demo, evaluate, export, predict, train
from offramp.cli import list as list_names
from offramp.errors import OfframpError

app = typer.Typer(
    help="Vision models that stop computing as soon as they are sure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verb in (demo, train, evaluate, calibrate, predict, export, bench, convert, list_names):
    name = verb.__name__.rpartition(".")[2]
    app.command(name, epilog=f"Example: {verb.EXAMPLE}")(verb.command)


def main() -> None:
    """Run the command line; an expected error is one sentence on stderr and its exit code."""
    try:
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
