"""Rows that are finished, so that a run that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from offramp._files import atomic_file


def kept(file: Path, stamp: Mapping[str, Any], make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows in a file, or new ones, which are then kept there; as JSON has them, with words for keys.

    Args:
        file: where they are kept.
        stamp: JSON values that say under which conditions; rows of others are made anew.
        make: makes them.
    """
    if file.exists():
        found = json.loads(file.read_text())
        if found["stamp"] == stamp:
            return found["rows"]
    text = json.dumps({"stamp": stamp, "rows": make()})
    with atomic_file(file) as new:
        new.write_text(text)
    return json.loads(text)["rows"]
