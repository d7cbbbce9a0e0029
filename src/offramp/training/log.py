"""The log of a run: one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Log:
    """Appends to a JSONL file; each line has a ``step``.

    Args:
        path: the file.
        start: the step that the run resumes at; lines of later steps, which will be done again, are dropped.
    """

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= start] if start else []
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, **values: Any) -> None:
        """One line."""
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
