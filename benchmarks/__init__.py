"""Benchmarks: each is a command, ``python -m benchmarks.NAME``; it prints one JSON object and keeps it in results/."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from offramp.versions import host, versions

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def publish(name: str, result: dict[str, Any]) -> None:
    """Print a result, stamped with machine, versions and commit, and write it to ``results/NAME.json``."""
    stamped = {"benchmark": name, **result, "host": host(), "versions": versions(), "commit": COMMIT}
    text = json.dumps(stamped, indent=1)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def _commit() -> str | None:
    if copied := os.environ.get("OFFRAMP_COMMIT"):  # of a copy without its history
        return copied
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()
            for words in (("describe", "--always"), ("status", "--porcelain", "--", ":/*.py", ":/*.toml"))
        )
    except OSError:
        return None
    return f"{commit}-dirty" if commit and changes else commit or None


COMMIT = _commit()
"""The code that runs, dirty where code was changed since: read at the start, a long benchmark may see later commits."""
