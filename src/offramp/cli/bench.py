"""offramp bench: the static backbone and the dynamic model, timed in turn."""

from __future__ import annotations

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
    out,
    ready,
    table,
)

if TYPE_CHECKING:
    from offramp.engine import Runtime

EXAMPLE = "offramp bench my-model fashion_mnist.npz --batch 1 --batch 64"


def command(
    model: Annotated[Path, typer.Argument(help="A saved model, a name from offramp list models, or an exported file.")],
    data: Annotated[str | None, typer.Argument(help="Data whose validation images to time; not with --shares.")] = None,
    shares: Annotated[
        str | None,
        typer.Option(
            help="Force these shares of exits, final last, on random images: .3,.2,.2,.1,.2. Without data and this, "
            "those that the policy expects."
        ),
    ] = None,
    batch: Annotated[list[int], typer.Option(help="Batch sizes; may be given more than once.", min=1)] = [1, 8, 64],  # noqa: B006
    images: Annotated[int, typer.Option(help="Images in a round.", min=1)] = 128,
    rounds: Annotated[int, typer.Option(help="Timed rounds.", min=1)] = 7,
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    runtime: RuntimeName = "torch",
    precision: Precision = "fp32",
    memory: Annotated[
        bool, typer.Option(help="Also measure peak memory, in processes of their own; not of an exported file.")
    ] = True,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="A timm name or an .onnx file to time in the same run; may be given more than once."),
    ] = None,
    piece: Annotated[
        str | None,
        typer.Option(
            help="Compute so many samples of a batch at a time, or auto: as many as are quickest here, for the static "
            "backbone and for the dynamic model, in PyTorch for each segment of it. Memory is not measured then."
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Time the static backbone and the dynamic model in turn, for each batch size.

    An exported file is timed against itself with no exit on.
    """
    from functools import partial

    from offramp.artifact import save
    from offramp.bench import peak_memory
    from offramp.bench.file import bench_file
    from offramp.bench.forced import ForcedWork
    from offramp.bench.rows import bench_forced, bench_policy, expected_shares
    from offramp.data import in_crops, open_splits
    from offramp.engine import RuntimeInPieces, open_runtime
    from offramp.errors import UsageError
    from offramp.pipeline import open_for
    from offramp.versions import host, versions

    if data is not None and shares is not None:
        raise UsageError("give data to run the policy on, or --shares to force the exits, not both")
    forced = None if shares is None else _numbers(shares)
    peak, size = None, None if piece is None else _piece(piece)
    if is_file(model):
        opens = file_runtime(runtime, precision, threads)
        others = {name: _baseline(name, opens) for name in baseline or []}
        session = opens.open(model)
        rule = chosen_numbers(session.file.policy, policy, threshold)
        if data is None:
            forced = forced or expected_shares(rule)
            rows = bench_file(session, opens, rule, forced, batch, images, rounds, True, others, size)
        else:
            record = session.file.about["record"]
            splits = open_splits(data, record.get("validation"), record.get("seed", 0), kind=type(session.file.input))
            samples = in_crops(splits.validation, session.file.input.crops)
            rows = bench_file(session, opens, rule, samples, batch, images, rounds, True, others, size)
    else:
        artifact = ready(model, device, threads)
        inner, computes = artifact.model, open_runtime(runtime, precision, threads)
        if size is not None:
            computes = RuntimeInPieces(computes, size)
        others = {name: _baseline(name, computes) for name in baseline or []}
        if data is None:
            asked = None
            if forced is None:
                rule = chosen_policy(artifact, policy, threshold)
                forced, asked = expected_shares(rule), rule.heads
            rows = bench_forced(inner, forced, batch, images, rounds, True, computes, others, asked)
            rule = ForcedWork(inner, forced, asked).fixed(batch[-1])
        else:
            rule = chosen_policy(artifact, policy, threshold)
            samples = open_for(artifact, data).validation
            rows = bench_policy(inner, rule, samples, batch, images, rounds, True, computes, others)
        if memory and piece is None:
            err.print("measuring peak memory, each way in a process of its own")
            peak = peak_memory(inner, rule, computes, batch[-1], partial(save, inner))
    about = {"images": data or "random", "shares": forced}
    if json:
        emit({"model": str(model), **about, "rows": rows, "peak_memory": peak, "host": host(), "versions": versions()})
        return
    show(rows, about, images, list(others))
    if peak is not None:
        static, dynamic = (f"{peak[way]['peak_mb']:.0f} MB" for way in ("static", "dynamic"))
        ratio = peak["dynamic"]["peak_mb"] / peak["static"]["peak_mb"]
        out.print(f"peak memory, batch {rows[-1]['batch']}: static {static}, dynamic {dynamic}, ratio {ratio:.2f}")


def show(rows: list[dict[str, Any]], about: dict[str, Any], images: int, others: list[str]) -> None:
    """The rows for people."""
    columns = ["batch", "static ms", "dynamic ms", "MACs speed-up", "measured speed-up", "range", "efficiency"]
    cells = [
        [
            str(r["batch"]),
            f"{r['static_ms']:.2f}",
            f"{r['dynamic_ms']:.2f}",
            f"{r['macs_speedup']:.2f}",
            f"{r['measured_speedup']:.2f}",
            "{:.2f} to {:.2f}".format(*r["measured_speedup_range"]),
            f"{r['efficiency']:.2f}",
            *(f"{r[f'{name}_ms']:.2f}" for name in others),
        ]
        for r in rows
    ]
    first, last = rows[0], rows[-1]
    title = f"{first['runtime']}, {first['precision']}, {first['threads']} threads, "
    title += f"{first['rounds']} rounds of {images} images"
    table(title, [*columns, *(f"{name} ms" for name in others)], cells)
    for row in rows:
        if "pieces" in row:
            static, dynamic = row["pieces"]["static"], row["pieces"]["dynamic"]
            own = f"dynamic {dynamic}" if isinstance(dynamic, int) else f"segments {' '.join(map(str, dynamic))}"
            out.print(f"Batch {row['batch']} in pieces: static {static}, {own}.")
    if about["shares"] is None:
        out.print(f"The policy ran on validation images of {about['images']}.")
    else:
        shares = " ".join(f"{100 * share:.1f}" for share in about["shares"])
        out.print(f"Exits forced on random images, in the shares {shares} %, the final exit last.")
    single, offline = first["single_stream_ms"], last["offline_per_second"]
    lines = [[n, f"{single[n]['p50']:.2f}", f"{single[n]['p90']:.2f}", f"{offline[n]:.1f}"] for n in offline]
    columns = ["", f"p50 ms, batch {first['batch']}", "p90 ms", f"samples a second, batch {last['batch']}"]
    table("SingleStream and Offline, as MLPerf has them", columns, lines)


def _numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    from offramp.errors import UsageError

    try:
        return [float(s) for s in text.split(",")]
    except ValueError:
        raise UsageError(f"--shares takes numbers with commas between them, not {text!r}") from None


def _piece(text: str) -> Any:
    """A number of samples, or auto."""
    from offramp.errors import UsageError

    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--piece takes a number of samples from 1, or auto, not {text!r}")
    return int(text)


def _baseline(name: str, runtime: Runtime) -> tuple[Any, tuple[int, ...]]:
    """A network to compare with, in the same runtime, and the shape of an image that it takes."""
    import timm
    import torch

    from offramp.backbones import input_size
    from offramp.engine import FileRuntime
    from offramp.errors import UsageError

    if name.endswith(".onnx"):
        if not isinstance(runtime, FileRuntime):
            raise UsageError(f"the runtime {runtime.name!r} opens no files: --baseline {name} needs another")
        return runtime.open_static(name)
    if not timm.is_model(name):
        raise UsageError(f"--baseline {name} is neither an .onnx file nor a name of timm's")
    network = timm.create_model(name)
    shape = input_size(network)
    return runtime.static(network, torch.randn(2, *shape)), shape
