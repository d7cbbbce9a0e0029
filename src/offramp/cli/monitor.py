"""offramp monitor: does a promise still hold."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import Json, emit, is_file, out

if TYPE_CHECKING:
    from offramp.calibration import Monitor
    from offramp.policies import Policy

EXAMPLE = "offramp monitor policy.json answers.jsonl --state watch.json"
ALARM = 3
"""The exit code of an alarm: it is a result, and neither of the codes of an error."""
_ASKS = {"disagreement": ("label", "full"), "gap": ("label", "full", "truth"), "error": ("label", "truth"), "brier": ()}


def command(
    policy: Annotated[Path, typer.Argument(help="A policy file, a saved model or an exported file, with a promise.")],
    answers: Annotated[
        str, typer.Argument(help="A file with one JSON object a line, or a list of them; - reads stdin.")
    ],
    state: Annotated[
        Path | None, typer.Option(help="Go on from this file, and write to it what has been seen since.")
    ] = None,
    level: Annotated[float, typer.Option(help="How often an alarm may be false, once for the whole stream.")] = 0.05,
    risk: Annotated[float | None, typer.Option(help="Watch this limit in place of the promised one.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="What --risk is a share of: disagreement, gap, brier, error; off-by-3 for numbers."),
    ] = None,
    json: Json = False,
) -> None:
    """Say whether what a policy promised still holds, from answers of which more became known later.

    An answer is what offramp predict prints, with "full", what the full model says, or "truth", or both:
    {"label": "cat", "full": "dog"}; or its loss alone: {"loss": 0.0}. The exit code is 3 after an alarm.
    """
    from offramp._files import read_json, write_json
    from offramp.calibration import Monitor, monitor

    watch = monitor(_policy(policy), level=level, risk=risk, loss=loss)
    if state is not None and state.exists():
        found = Monitor.from_json(read_json(state))
        found.check_same(watch, str(state))
        watch = found
    skipped = 0
    for losses, without in _blocks(_losses(_read(answers), watch.loss)):
        watch = watch.update(losses)
        skipped += without
    if state is not None:
        write_json(state, watch.to_json())
    if json:
        emit(_result(watch, skipped))
    else:
        out.print(watch.sentence, markup=False)
        if skipped:
            out.print(f"Passed over: {skipped} without an answer.", markup=False)
    if watch.alarm:
        raise typer.Exit(ALARM)


def _policy(path: Path) -> Policy:
    from offramp.policies import load_policy

    if is_file(path):
        from offramp.export.metadata import read_file

        return read_file(path)[1].policy
    return load_policy(path / "policy.json" if path.is_dir() else path)


def _read(source: str) -> Iterator[tuple[str, Any]]:
    """The values in a file and where each stands, line by line, or one by one where the file is one list."""
    from offramp.errors import DataError

    name = "stdin" if source == "-" else source
    try:
        with nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb") as stream:
            yield from _values(stream, name)
    except OSError as error:
        raise DataError(f"no answers could be read from {name}: {error.strerror}") from error


def _values(stream: Iterable[bytes], name: str) -> Iterator[tuple[str, Any]]:
    lines = ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
    first = next(lines, (0, b""))
    if first[1].lstrip().startswith(b"["):
        whole = _parsed(b"".join((first[1], *(line for _, line in lines))), name)
        yield from ((f"answer {place} of {name}", value) for place, value in enumerate(whole, start=1))
    elif first[1]:
        for number, line in chain([first], lines):
            where = f"line {number} of {name}"
            yield where, _parsed(line, where)


def _parsed(text: bytes, where: str) -> Any:
    from offramp.errors import DataError

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number of JSON's")

    try:
        return jsonlib.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from error


def _losses(values: Iterable[tuple[str, Any]], kind: str) -> Iterator[float | None]:
    """The loss of each answer; None for what predict could not read and did not answer."""
    from offramp.errors import DataError

    for where, value in values:
        if not isinstance(value, dict):
            raise DataError(f"{where} is no JSON object")
        if "loss" in value:
            if not _is_number(value["loss"]) or not 0 <= value["loss"] <= 1:
                raise DataError(f"{where} has the loss {_short(value['loss'])}; losses lie between 0 and 1")
            yield float(value["loss"])
        elif "error" in value and "label" not in value:
            yield None
        else:
            yield _compared(value, kind, where)


def _compared(value: Mapping[str, Any], kind: str, where: str) -> float:
    from offramp.calibration.losses import beyond
    from offramp.errors import DataError

    limit = beyond(kind)
    asks = _ASKS[kind] if limit is None else ("label", "truth" if limit[0] else "full")
    if not asks:
        raise DataError(f"{where} has no 'loss': labels do not tell the loss {kind!r}")
    for key in asks:
        if key not in value:
            raise DataError(f"{where} has no {key!r}: the loss {kind!r} asks for {' and '.join(asks)}, or for 'loss'")
        if not isinstance(value[key], str) and not _is_number(value[key]):
            raise DataError(f"{where} has the {key} {_short(value[key])}; it is a name or a number")
        if isinstance(value[key], str) != isinstance(value["label"], str):
            raise DataError(f"{where} has a label and a {key} of which one is a name and the other a number")
    label = value["label"]
    if limit is not None:
        if isinstance(label, str):
            raise DataError(f"{where} has the label {_short(label)}: the loss {kind!r} is one of numbers")
        return float(abs(label - value[asks[1]]) > limit[1])
    if kind == "gap":
        return float(value["full"] == value["truth"] and label != value["truth"])
    return float(label != value[asks[1]])


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _short(value: Any) -> str:
    text = jsonlib.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _blocks(losses: Iterator[float | None]) -> Iterator[tuple[list[float], int]]:
    """Losses in lists of a few thousand, and how many were None."""
    while block := list(islice(losses, 4096)):
        known = [loss for loss in block if loss is not None]
        yield known, len(block) - len(known)


def _result(watch: Monitor, skipped: int) -> dict[str, Any]:
    return {
        "alarm": watch.alarm,
        "at": watch.at,
        "samples": watch.samples,
        "skipped": skipped,
        "mean": watch.mean,
        "risk": watch.risk,
        "level": watch.level,
        "loss": watch.loss,
        "wealth": watch.wealth,
        "confidence": watch.confidence,
        "sentence": watch.sentence,
    }
