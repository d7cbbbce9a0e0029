"""offramp predict: what is in these files."""

from __future__ import annotations

import glob
import io
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

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
    from collections.abc import Callable, Collection, Iterable, Sequence

    from offramp._batches import Inputs
    from offramp.engine.runtime import FileRuntime, Runtime, Session
    from offramp.inputs import Input
    from offramp.model import EarlyExitModel
    from offramp.policies import Policy
    from offramp.tasks import Task
    from offramp.types import Chain

EXAMPLE = "offramp predict photo.jpg 'more/*.png' a-folder --model my-model"
_LONGEST = 2**30
"""How many bytes are read from stdin: more than the largest image takes where nothing is compressed."""


class Opened(NamedTuple):
    """What answers, and what its answers mean.

    Args:
        session: the model, opened in a runtime.
        policy: the policy to run it with; None for its own.
        task: what an output means.
        input: what a file holds, and how it is prepared.
        classes: the names of the classes.
        chain: where the exits stand.
        raw: whether the session takes samples as they are.
    """

    session: Session
    policy: Policy | None
    task: Task
    input: Input
    classes: Sequence[str] | None
    chain: Chain
    raw: bool = False


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
    json: Json = False,
) -> None:
    """Label images, or what else a model reads, one by one: label, score, the exit that each left at, milliseconds.

    A file that cannot be read is named, the others are still answered, and the exit code is 1.
    """
    from offramp._progress import track

    if is_file(model):
        opened = open_file(model, file_runtime(runtime, precision, threads), policy, threshold)
    else:
        from offramp.engine import open_runtime

        artifact = ready(model, device, threads)
        rule = chosen_policy(artifact, policy, threshold)
        opened = open_model(artifact.model, rule, open_runtime(runtime, precision, threads))
    files = list(expand(inputs, opened.input.suffixes))
    rows = predict(opened, track(files, "predicting", len(files)))
    if json:
        emit(rows)
    else:
        show(opened.task, rows)
    for row in rows:
        if "error" in row:
            err.print(f"offramp: {row['error']}", markup=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def open_model(model: EarlyExitModel, policy: Policy, runtime: Runtime) -> Opened:
    """A model with a policy."""
    session = runtime.dynamic(model, policy)
    return Opened(session, None, model.task, model.input, model.classes, model.chain)


def open_file(path: Path, runtime: FileRuntime, policy: Path | None, threshold: float | None) -> Opened:
    """An exported file, with its own policy's numbers or with others."""
    from offramp.tasks import get_task

    session = runtime.open(path)
    about, rule = session.file.about, chosen_numbers(session.file.policy, policy, threshold)
    task = get_task(about["task"])
    return Opened(session, rule, task, session.file.input, about["classes"], session.file.chain, session.raw)


def predict(opened: Opened, files: Iterable[str]) -> list[dict[str, Any]]:
    """An answer for each file, or the error in its place."""
    opened.session(opened.input.example(1, raw=opened.raw), opened.policy)  # the first run is slow, and no file's own
    prepare = opened.input.raw if opened.raw else partial(_alone, opened.input.transform())
    return [_answer(opened, prepare, file) for file in files]


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


def _answer(opened: Opened, prepare: Callable[[Any], Inputs], file: str) -> dict[str, Any]:
    from offramp.errors import DataError

    try:
        x = prepare(_open(file, opened.input))
        start = time.perf_counter()
        trace = opened.session(x, opened.policy)
        answer = opened.task.answer(trace.output)[0].item()
        spent = time.perf_counter() - start
    except DataError as error:
        return {"input": file, "error": str(error)}
    left = int(trace.exit[0])
    return {
        "input": file,
        "label": answer if opened.classes is None else opened.classes[int(answer)],
        "score": float(trace.score[0]),
        "exit": left,
        "after": opened.chain.after[left],
        **({"path": opened.chain.paths[left]} if opened.chain.num_paths > 1 else {}),
        "ms": 1000 * spent,
    }


def _alone(transform: Callable[[Any], Inputs], sample: Any) -> Inputs:
    """A batch of one."""
    from offramp._batches import each

    return each(lambda part: part[None], transform(sample))


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
