"""offramp bench: the static backbone and the dynamic model, timed in turn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import (
    Device,
    Json,
    Model,
    OneThreshold,
    PolicyFile,
    Precision,
    RuntimeName,
    Threads,
    chosen_policy,
    emit,
    err,
    out,
    ready,
    table,
)

if TYPE_CHECKING:
    from offramp.engine import Runtime
    from offramp.policies import Policy

EXAMPLE = "offramp bench my-model fashion_mnist.npz --batch 1 --batch 64"


def command(
    model: Model,
    data: Annotated[str | None, typer.Argument(help="Data whose validation images to time; not with --shares.")] = None,
    shares: Annotated[
        str | None,
        typer.Option(help="Force these shares of exits, final last, on random images: .3,.2,.2,.1,.2"),
    ] = None,
    batch: Annotated[list[int], typer.Option(help="Batch sizes; may be given more than once.", min=1)] = [1, 8, 64],  # noqa: B006
    images: Annotated[int, typer.Option(help="Images in a round.", min=1)] = 128,
    rounds: Annotated[int, typer.Option(help="Timed rounds.", min=1)] = 7,
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    runtime: RuntimeName = "torch",
    precision: Precision = "fp32",
    memory: Annotated[bool, typer.Option(help="Also measure peak memory, in processes of their own.")] = True,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="A timm name or an .onnx file to time in the same run; may be given more than once."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Time the static backbone and the dynamic model in turn, for each batch size."""
    from offramp.artifact import save
    from offramp.engine import open_runtime, peak_memory
    from offramp.engine.bench import bench_forced, bench_policy
    from offramp.errors import UsageError
    from offramp.pipeline import open_for
    from offramp.policies.forced import forced_shares
    from offramp.versions import host, versions

    if (data is None) == (shares is None):
        raise UsageError("give data to run the policy on, or --shares to force the exits")
    artifact = ready(model, device, threads)
    computes = open_runtime(runtime, precision, threads)
    others = {name: _baseline(name, computes) for name in baseline or []}
    rows: list[dict[str, Any]]
    if shares is not None:
        try:
            parts = [float(s) for s in shares.split(",")]
        except ValueError:
            raise UsageError(f"--shares takes numbers with commas between them, not {shares!r}") from None
        rule: Policy = forced_shares(parts, batch[-1])
        rows = bench_forced(artifact.model, parts, batch, images, rounds, True, computes, others)
    else:
        rule = chosen_policy(artifact, policy, threshold)
        samples = open_for(artifact, str(data)).validation
        rows = bench_policy(artifact.model, rule, samples, batch, images, rounds, True, computes, others)
    peak = None
    if memory:
        err.print("measuring peak memory, each way in a process of its own")
        peak = peak_memory(artifact.model, rule, computes, batch[-1], partial(save, artifact.model))
    if json:
        about = {"host": host(), "versions": versions()}
        emit({"model": str(model), "rows": rows, "peak_memory": peak, **about})
        return
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
        ]
        for r in rows
    ]
    for name in others:
        columns.append(f"{name} ms")
        for row, cell in zip(rows, cells, strict=True):
            cell.append(f"{row[f'{name}_ms']:.2f}")
    title = f"{runtime}, {precision}, {rows[0]['threads']} threads, {rounds} rounds of {images} images"
    table(title, columns, cells)
    last, single = rows[-1]["offline_per_second"], rows[0]["single_stream_ms"]
    lines = [
        [
            name,
            f"{single[name]['p50']:.2f}",
            f"{single[name]['p90']:.2f}",
            f"{last[name]:.1f}",
        ]
        for name in last
    ]
    columns = ["", f"p50 ms, batch {rows[0]['batch']}", "p90 ms", f"samples a second, batch {rows[-1]['batch']}"]
    table("SingleStream and Offline, as MLPerf has them", columns, lines)
    if peak is not None:
        static, dynamic = (f"{peak[way]['peak_mb']:.0f} MB" for way in ("static", "dynamic"))
        ratio = peak["dynamic"]["peak_mb"] / peak["static"]["peak_mb"]
        out.print(f"peak memory, batch {rows[-1]['batch']}: static {static}, dynamic {dynamic}, ratio {ratio:.2f}")


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
