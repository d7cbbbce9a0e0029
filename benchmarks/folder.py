"""A folder answered by one process and by Ray's actors: the same rows, and nothing twice after everything was killed.

``python -m benchmarks.folder --data cifar10.npz`` writes test pictures as files; ``offramp predict`` answers them with
the model in the box, in one process and with ``--engine ray``. Then a third folder of answers is begun, Ray and all its
processes are killed on the way, and the same command goes on. Rows are compared one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks import publish

KEYS = ("label", "exit", "after", "error")
"""That have to be equal; scores differ in the last digits where batches are others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an .npz of encoded pictures, as data.source reads it")
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        pictures = folder / "pictures"
        write_pictures(args.data, pictures, args.pictures)
        found = compare(pictures, folder, args.actors, args.batch)
    publish("folder", {"settings": {k: v for k, v in vars(args).items() if k != "data"}, **found})


def write_pictures(data: Path, folder: Path, most: int) -> None:
    """Pictures of the test split as files."""
    folder.mkdir()
    with np.load(data) as kept:
        content, offsets = kept["test_bytes"], kept["test_offsets"]
    for i in range(min(most, len(offsets) - 1)):
        (folder / f"{i:05d}.jpg").write_bytes(content[offsets[i] : offsets[i + 1]].tobytes())


def compare(pictures: Path, work: Path, actors: int, batch: int, files: int = 3) -> dict[str, Any]:
    """What one process, actors, and actors that were killed and begun again, write."""
    one, many, again = work / "one.parquet", work / "many", work / "again"
    on_ray = ("--engine", "ray", "--actors", str(actors))
    seconds = {"one process": _predict(pictures, one, batch)[0], "ray": _predict(pictures, many, batch, *on_ray)[0]}
    kept = _kill_after(pictures, again, batch, on_ray, files)
    spent, said = _predict(pictures, again, batch, *on_ray)
    seconds["ray, the rest"] = spent
    rows = {where.name: rows_in(where) for where in (one, many, again)}
    return {
        "rows": {name: len(found) for name, found in rows.items()},
        "differ": {name: differ(rows["one.parquet"], rows[name]) for name in ("many", "again")},
        "largest_difference_of_scores": max(
            abs(a["score"] - b["score"])
            for name in ("many", "again")
            for a, b in zip(rows["one.parquet"], rows[name], strict=True)
            if a["error"] is None
        ),
        "killed": {"written_before": kept, "answered_before": said["before"], "answered_after": said["now"]},
        "seconds": seconds,
    }


def rows_in(where: Path) -> list[dict[str, Any]]:
    """The rows of a file or a folder of them, by input."""
    files = [where] if where.is_file() else sorted(where.glob("*.parquet"))
    rows = [row for file in files for row in parquet.read_table(file, partitioning=None).to_pylist()]
    return sorted(rows, key=lambda row: row["input"])


def differ(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> int:
    """In how many rows something is another, or of which input there are not as many."""
    if [row["input"] for row in rows] != [row["input"] for row in others]:
        return max(len(rows), len(others))
    return sum(any(a[key] != b[key] for key in KEYS) for a, b in zip(rows, others, strict=True))


def _command(pictures: Path, out: Path, batch: int, options: Sequence[str]) -> list[str]:
    words = [sys.executable, "-m", "offramp", "predict", str(pictures), "--out", str(out), "--batch", str(batch)]
    return [*words, "--threads", "1", *options, "--json"]


def _predict(pictures: Path, out: Path, batch: int, *options: str) -> tuple[float, Any]:
    begun = time.perf_counter()
    done = subprocess.run(_command(pictures, out, batch, options), stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):  # 1 where a file could not be read: a row says so
        raise RuntimeError("offramp predict failed, as it says above")
    return time.perf_counter() - begun, json.loads(done.stdout)


def _kill_after(pictures: Path, out: Path, batch: int, options: Sequence[str], files: int) -> int:
    """Kill a command and all that it started, when it has written so many files; the rows in those that are whole."""
    running = subprocess.Popen(
        _command(pictures, out, batch, options), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while len(list(out.glob("*.parquet"))) < files:
        if running.poll() is not None:
            raise RuntimeError("the command ended before it could be killed: give it more pictures")
        time.sleep(0.02)
    killed = _descendants(running.pid)
    for process in (running.pid, *killed):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    running.wait()
    return sum(parquet.read_metadata(file).num_rows for file in out.glob("*.parquet") if _whole(file))


def _descendants(parent: int) -> list[int]:
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
    found = [parent]
    for process in found:
        found += [pid for pid, above in pairs if above == process]
    return found[1:]


def _whole(file: Path) -> bool:
    try:
        parquet.read_metadata(file)
    except pa.ArrowInvalid:
        return False
    return True


if __name__ == "__main__":
    main()
