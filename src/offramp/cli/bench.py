"""offramp bench: the static backbone and the dynamic model, timed in turn."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from offramp.cli._shared import (
    Device,
    Json,
    Model,
    OneThreshold,
    PolicyFile,
    Threads,
    chosen_policy,
    emit,
    ready,
    table,
)

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
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Time the static backbone and the dynamic model in turn, for each batch size."""
    from offramp.engine.bench import bench_forced, bench_policy
    from offramp.errors import UsageError
    from offramp.pipeline import open_for
    from offramp.versions import host, versions

    if (data is None) == (shares is None):
        raise UsageError("give data to run the policy on, or --shares to force the exits")
    artifact = ready(model, device, threads)
    rows: list[dict[str, Any]]
    if shares is not None:
        try:
            parts = [float(s) for s in shares.split(",")]
        except ValueError:
            raise UsageError(f"--shares takes numbers with commas between them, not {shares!r}") from None
        rows = bench_forced(artifact.model, parts, batch, images, rounds, progress=True)
    else:
        rule = chosen_policy(artifact, policy, threshold)
        samples = open_for(artifact, str(data)).validation
        rows = bench_policy(artifact.model, rule, samples, batch, images, rounds, progress=True)
    if json:
        emit({"model": str(model), "rows": rows, "host": host(), "versions": versions()})
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
    table(f"PyTorch, fp32, {rows[0]['threads']} threads, {rounds} rounds of {images} images", columns, cells)
