"""The command line: the library's verbs, one file each."""

from offramp.cli._app import main

__all__ = ["main"]
