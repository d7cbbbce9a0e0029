"""offramp predict: what is in these files."""

from __future__ import annotations

import glob
import io
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import (
    Device,
    Json,
    OneThreshold,
    PolicyFile,
    Precision,
    RuntimeName,
    Threads,
    chosen_numbers,
    chosen_policy,
    emit,
    err,
    file_runtime,
    is_file,
    ready,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from offramp.answers import Opened
    from offramp.cluster.folder import Actors
    from offramp.inputs import Input
    from offramp.model import EarlyExitModel
    from offramp.policies import Policy
    from offramp.tasks import Task

EXAMPLE = "offramp predict photo.jpg 'more/*.png' a-folder --model my-model"
_LONGEST = 2**30
"""How many bytes are read from stdin: more than the largest image takes where nothing is compressed."""


def command(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, globs; - reads one file from stdin.")],
    model: Annotated[
        Path,
        typer.Option("--model", "-m", help="A saved model, a name from offramp list models, or an exported file."),
    ] = Path("cifar10"),
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    runtime: RuntimeName = "torch",
    precision: Precision = "fp32",
    device: Device = "auto",
    threads: Threads = 0,
    out: Annotated[
        str | None,
        typer.Option(help="Write the answers as Parquet: to this file; with --engine ray to this folder."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local; or ray: on a Ray cluster, or on all of this machine; files and --out may be at s3://… and the "
            "like, and what stands in --out is not computed again."
        ),
    ] = "local",
    actors: Annotated[int, typer.Option(help="How many models compute at once, with --engine ray.", min=1)] = 1,
    batch: Annotated[int, typer.Option(help="Samples that are computed at once, with --out.", min=1)] = 64,
    json: Json = False,
) -> None:
    """Label images, or what else a model reads: label, score, the exit that each left at, milliseconds.

    One by one; in batches with --out. A file that cannot be read is named, the others are still answered, and the exit
    code is 1.
    """
    from offramp._progress import track
    from offramp.answers import open_file, open_model
    from offramp.engine import open_runtime
    from offramp.errors import UsageError

    if engine not in ("local", "ray"):
        raise UsageError(f"--engine is local or ray, not {engine!r}")
    if engine == "ray":
        if out is None or is_file(model):
            raise UsageError("--engine ray answers with a saved model, not a file, and into a folder: give --out")
        from offramp.cluster import folder

        artifact = ready(model, "cpu", threads)
        rule = chosen_policy(artifact, policy, threshold)
        where = "cpu" if device == "auto" else device
        _on_ray(
            artifact.model,
            rule,
            inputs,
            out,
            folder.Actors(actors, runtime, precision, where, max(threads, 1), batch),
            json,
        )
        return
    if is_file(model):
        session = file_runtime(runtime, precision, threads).open(model)
        opened = open_file(session, chosen_numbers(session.file.policy, policy, threshold))
    else:
        artifact = ready(model, device, threads)
        rule = chosen_policy(artifact, policy, threshold)
        opened = open_model(artifact.model, rule, open_runtime(runtime, precision, threads))
    files = list(expand(inputs, opened.input.suffixes))
    if out is not None:
        from offramp.answers.table import check_place, schema_of, write_rows

        check_place(Path(out))
    rows = predict(opened, track(files, "predicting", len(files)), 1 if out is None else batch)
    if out is not None:
        write_rows(Path(out), rows, schema_of(opened))
    if json:
        emit(rows)
    elif out is None:
        show(opened.task, rows)
    for row in rows:
        if "error" in row:
            err.print(f"offramp: {row['error']}", markup=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _on_ray(model: EarlyExitModel, policy: Policy, inputs: list[str], out: str, actors: Actors, json: bool) -> None:
    from dataclasses import asdict

    from offramp.cluster.folder import answer_files, files_in

    suffixes, files = model.input.suffixes, []
    for name in inputs:
        far = "://" in name
        files += files_in(name, suffixes) if far else [str(Path(f).absolute()) for f in expand([name], suffixes)]
    done = answer_files(model, policy, files, out, actors)
    if json:
        emit(asdict(done))
    else:
        typer.echo(f"{out}: {done.now} answered now, {done.before} before; {done.errors} files could not be read")
    if done.errors:
        raise typer.Exit(1)


def predict(opened: Opened, files: Iterable[str], batch: int = 1) -> list[dict[str, Any]]:
    """A row for each file, computed ``batch`` at a time."""
    from offramp.answers import answered

    opened.warm()
    names = iter(files)
    rows = []
    while some := list(islice(names, batch)):
        rows += answered(opened, some, partial(_open, reads=opened.input))
    return rows


def show(task: Task, rows: list[dict[str, Any]]) -> None:
    """The answers for people; errors are left out."""
    cells = [
        [r["input"], str(r["label"]), f"{r['score']:.3f}", _left(r), f"{r['ms']:.1f}"] for r in rows if "error" not in r
    ]
    if cells:
        table("", ["input", "label", task.scores[0], "left after", "ms"], cells)


def _left(row: dict[str, Any]) -> str:
    return f"block {row['after']}" + (f" of path {row['path']}" if "path" in row else "")


def expand(inputs: list[str], suffixes: Collection[str]) -> list[str]:
    """Folders and globs as the files in them, in order; what is neither, or holds none, stays as it is."""
    files: list[str] = []
    for name in inputs:
        found: list[str] = []
        if name != "-" and Path(name).is_dir():
            found = sorted(str(f) for f in Path(name).rglob("*") if f.suffix.lower() in suffixes)
        elif _is_glob(name):
            found = sorted(glob.glob(name, recursive=True))
        files += found or [name]
    return files


def _is_glob(name: str) -> bool:
    return not Path(name).exists() and glob.has_magic(name)


def _open(file: str, reads: Input) -> Any:
    from offramp.errors import DataError

    if file == "-":
        content = sys.stdin.buffer.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise DataError(f"the input is longer than any file that is read: {_LONGEST // 2**20} MB")
        return reads.read(io.BytesIO(content), "the input")
    if Path(file).is_dir():
        raise DataError(f"the folder {file} holds no {reads.noun}")
    if _is_glob(file):
        raise DataError(f"nothing matches {file}")
    return reads.read(file)
