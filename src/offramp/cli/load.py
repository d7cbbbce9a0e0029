"""offramp load: requests at given times, and what a server makes of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import Json, emit, err, out, table

if TYPE_CHECKING:
    import numpy as np

EXAMPLE = "offramp load http://127.0.0.1:8000 photos --rate 50 --deadline-ms 100"


def command(
    url: Annotated[
        str | None,
        typer.Argument(help="The server's address. Not given: a server that computes nothing, to measure the asking."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files to send, or folders of them, where a file's folder is its class; random prepared samples if "
            "not given."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model's name; not needed where there is one.")] = None,
    arrivals: Annotated[
        str,
        typer.Option(
            help="poisson (MLPerf's Server), fixed (a camera; MultiStream with --samples), bursts, or a .csv file "
            "with the seconds of arrival in its first column."
        ),
    ] = "poisson",
    rate: Annotated[float, typer.Option(help="Requests a second on average; 30 is a camera.")] = 30.0,
    requests: Annotated[int, typer.Option(help="How many; of a file at most so many.", min=1)] = 1000,
    samples: Annotated[int, typer.Option(help="In each request.", min=1)] = 1,
    deadline_ms: Annotated[float, typer.Option(help="Milliseconds until an answer is due; the server is told.")] = 100,
    warm_up: Annotated[int, typer.Option(help="Requests before, one after the other, which do not count.", min=0)] = 20,
    seed: Annotated[int, typer.Option(help="Of arrivals and of random samples.")] = 0,
    save: Annotated[Path | None, typer.Option("--out", help="Also write the result to this JSON file.")] = None,
    json: Json = False,
) -> None:
    """Send requests at given times, whatever becomes of those before, and say what was answered in time.

    Any server of the Open Inference Protocol v2 is understood. A key is taken from the environment variable
    OFFRAMP_KEY. Times count from when a request was due, so a server that is slow does not slow its callers.
    """
    import asyncio
    import math
    from contextlib import nullcontext

    import numpy as np

    from offramp._files import write_json
    from offramp._progress import progress_bar
    from offramp.errors import UsageError
    from offramp.protocol import frozen
    from offramp.protocol.load import describe, parcels_of, send, summary
    from offramp.protocol.null import null_server
    from offramp.versions import host, versions

    if not 0 < deadline_ms < math.inf:
        raise UsageError(f"--deadline-ms is {deadline_ms:g}; it is above 0")
    due, limit, key = _arrivals(arrivals, rate, requests, seed), deadline_ms / 1e3, os.environ.get("OFFRAMP_KEY")
    contents = _read(files or [])
    with null_server() if url is None else nullcontext(url.rstrip("/")) as address:
        about = asyncio.run(describe(address, model, key))
        own = parcels_of(about, contents, samples, {"timeout": round(deadline_ms * 1e3)}, seed)
        where, patience = f"{address}/v2/models/{about['name']}/infer", max(10 * limit, 10.0)
        asyncio.run(send(where, own, np.zeros(warm_up), patience, 1, key))
        with frozen(), progress_bar("asking", len(due)) as bar:
            found = asyncio.run(send(where, own, due, patience, key=key, told=bar))
    result = {
        "server": url or "one that computes nothing",
        "model": about["name"],
        "arrivals": arrivals,
        "samples": samples,
        "deadline_ms": deadline_ms,
        **summary(found, limit),
        "host": host(),
        "versions": versions(),
    }
    if save is not None:
        write_json(save, result)
    if json:
        emit(result)
    else:
        show(result)


def show(result: dict[str, Any]) -> None:
    """The result for people."""
    title = f"{result['requests']} requests, {result['offered']:.1f} a second, {result['deadline_ms']:g} ms each"
    shares = [f"{100 * result[name]:.2f} %" for name in ("in_time", "late", "refused", "failed")]
    table(title, ["", "in time", "late", "refused", "failed"], [[result["arrivals"], *shares]])
    columns = ["milliseconds", "p50", "p95", "p99"]
    rows = [("to an answer", result["latency_ms"]), ("sent late by", result["lag_ms"])]
    table("From when a request was due", columns, [[n, *(f"{v:.2f}" for v in q.values())] for n, q in rows if q])
    out.print(f"Goodput: {result['goodput']:.1f} requests a second answered in time.")
    if "exits" in result:
        shares = [f"{k}: {100 * share:.1f} %" for k, share in result["exits"].items()]
        out.print(f"By exit: {', '.join(shares)}.")
    if "accuracy" in result:
        low, high = result["accuracy_interval"]
        out.print(
            f"Accuracy of what was answered: {100 * result['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})."
        )
    if result["lag_ms"]["p50"] > 0.05 * result["deadline_ms"]:
        err.print("offramp: this machine sends late; the times are its own as much as the server's")


def _arrivals(name: str, rate: float, requests: int, seed: int) -> np.ndarray:
    from offramp.errors import UsageError
    from offramp.serving.arrivals import PROCESSES, replay

    if name in PROCESSES:
        return PROCESSES[name](rate, requests, seed)
    if name.endswith(".csv"):
        return replay(Path(name))[:requests]
    raise UsageError(f"there are no arrivals {name!r}: {', '.join(PROCESSES)}, or a .csv file")


def _read(files: list[Path]) -> list[tuple[bytes, str | None]]:
    """Files, and those in folders with the folder that each stands in."""
    from offramp.errors import DataError

    found: list[tuple[bytes, str | None]] = []
    for path in files:
        if not path.is_dir():
            found.append((path.read_bytes(), None))
            continue
        inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not inside:
            raise DataError(f"{path} is empty")
        found += [(file.read_bytes(), file.parent.name if file.parent != path else None) for file in inside]
    return found
