"""offramp edge: the first segments here, the rest on a server for those who are not sure here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import Device, Json, OneThreshold, PolicyFile, Threads, chosen_policy, emit, err, ready, table

if TYPE_CHECKING:
    from offramp.artifact import Artifact
    from offramp.policies import Policy

EXAMPLE = "offramp edge my-model http://10.0.0.5:8000 photos"


def command(
    model: Annotated[Path, typer.Argument(help="The folder of a saved model, or a name; the server has the same.")],
    url: Annotated[str, typer.Argument(help="The address of offramp serve.")],
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, globs.")],
    split: Annotated[
        str,
        typer.Option(
            help="The number of the last exit that is computed here; -1 for none, the final one to send nothing; auto "
            "chooses the quickest by what sending and computing take."
        ),
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="The model's name on the server; its folder's if not given.")] = None,
    deadline_ms: Annotated[float, typer.Option(help="Milliseconds after which the answer from here counts.")] = 1000.0,
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Answer files in two places: who is not sure here goes on there, as tokens in int8.

    Where nobody answers in time, the answer is the last one from here. A key is taken from the environment variable
    OFFRAMP_KEY. A file that cannot be read is named, the others are still answered, and the exit code is 1.
    """
    from offramp._progress import track
    from offramp.cli.predict import expand
    from offramp.errors import DataError, UsageError
    from offramp.protocol.edge import Edge

    if not 0 < deadline_ms < float("inf"):
        raise UsageError(f"--deadline-ms is {deadline_ms:g}; it is above 0")
    artifact = ready(model, device, threads)
    rule, called, key = (
        chosen_policy(artifact, policy, threshold),
        name or Path(model).name,
        os.environ.get("OFFRAMP_KEY"),
    )
    files = expand(inputs, artifact.model.input.suffixes)
    chosen, expected = _chosen(artifact, rule, url, called, split, files, key)
    prepare, rows = artifact.model.input.transform(), []
    with Edge(artifact.model, rule, url, called, chosen, key=key) as edge:
        for file in track(files, "answering", len(files)):
            try:
                rows.append({"input": file, **_answer(edge, prepare, file, deadline_ms / 1e3)})
            except (DataError, OSError) as error:
                rows.append({"input": file, "error": str(error)})
    if json:
        emit({"split": chosen, "expected_ms": expected, "answers": rows})
    else:
        show(rows, chosen, expected)
    for row in rows:
        if "error" in row:
            err.print(f"offramp: {row['error']}", markup=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def show(rows: list[dict[str, Any]], split: int, expected: dict[str, float] | None) -> None:
    """The answers for people; errors are left out."""
    if expected is not None:
        said = ", ".join(f"{k}: {ms:.1f}" for k, ms in expected.items())
        err.print(f"expected milliseconds by split, {said}; computed here up to exit {split}", markup=False)
    columns = ["input", "label", "score", "exit", "where", "bytes", "ms"]
    cells = [
        [r["input"], str(r["label"]), f"{r['score']:.3f}", str(r["exit"]), r["where"], str(r["sent"]), f"{r['ms']:.1f}"]
        for r in rows
        if "error" not in r
    ]
    if cells:
        table("", columns, cells)


def _answer(edge: Any, prepare: Any, file: str, limit: float) -> dict[str, Any]:
    import io

    from offramp._batches import each

    model, content = edge.model, Path(file).read_bytes()
    x = each(lambda part: part[None], prepare(model.input.read(io.BytesIO(content), file)))
    found = edge.answer(x, limit, content)
    answer = model.task.answer(found.output[None])[0].item()
    return {
        "label": answer if model.classes is None else model.classes[int(answer)],
        "score": found.score,
        "exit": found.exit,
        "where": found.where,
        "sent": found.sent,
        "ms": 1e3 * found.seconds,
    }


def _chosen(
    artifact: Artifact, policy: Policy, url: str, name: str, split: str, files: list[str], key: str | None
) -> tuple[int, dict[str, float] | None]:
    """The split, and where it was to be chosen what each takes."""
    from offramp.errors import UsageError
    from offramp.policies import replay
    from offramp.protocol.edge import Edge
    from offramp.protocol.split import NOTHING, expected_seconds, seconds_here, seconds_there, way_to

    if split != "auto":
        try:
            return int(split), None
        except ValueError:
            raise UsageError(f"--split is {split!r}; it is the number of an exit, or auto") from None
    if artifact.table is None:
        raise UsageError("the model has no validation table to choose a split by: give --split")
    model, heads = artifact.model, policy.heads
    sizes: dict[int, float] = {len(model.exits): 0.0}
    for k in heads:
        with Edge(model, policy, url, name, k, key=key) as edge:
            sizes[k] = edge.size()
    lengths = [Path(file).stat().st_size for file in files if Path(file).is_file()]
    sizes[NOTHING] = sum(lengths) / max(len(lengths), 1)
    way, there = way_to(url, key), seconds_there(url, name, key)
    trace = replay(policy, artifact.table, model.task)
    found = expected_seconds(trace, heads, seconds_here(model, policy), there, sizes, way)
    return min(found, key=lambda k: found[k]), {str(k): 1e3 * seconds for k, seconds in found.items()}
