"""offramp serve: a saved model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli._shared import Device, Model, OneThreshold, PolicyFile, Precision, Threads, chosen_policy, err, ready

if TYPE_CHECKING:
    from offramp.model import EarlyExitModel

EXAMPLE = "offramp serve my-model --port 8000"


def command(
    model: Model,
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0 is all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.", min=1, max=65535)] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(help="Also answer the protocol over gRPC, at this port.", min=1, max=65535)
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the paths; its folder's if not given.")] = None,
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    strictest: Annotated[
        float | None,
        typer.Option(help="Where there is little to do, this threshold; it falls to that of a promise with load."),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            help="Compare this share of answers with the whole model's, and watch the policy's promise with them."
        ),
    ] = None,
    watch_state: Annotated[
        Path | None, typer.Option(help="Go on watching from this file, and write to it what has been seen since.")
    ] = None,
    stricter: Annotated[
        bool, typer.Option("--stricter", help="After an alarm, let nobody leave who is not wholly sure.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Samples in a batch.", min=1)] = 16,
    queue: Annotated[int, typer.Option(help="Samples inside at once.", min=1)] = 512,
    seconds: Annotated[float, typer.Option(help="The deadline of a request that says none, and the latest.")] = 30.0,
    examples: Annotated[
        Path | None,
        typer.Option(help="A folder of files to choose from on the page at /; two photographs if not given."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="A certificate, for HTTPS.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    client_authority: Annotated[
        Path | None, typer.Option(help="Callers have to show a certificate of this authority.")
    ] = None,
    precision: Precision = "fp32",
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Answer requests of the Open Inference Protocol v2 by their deadlines, with the deepest exit that there is.

    Callers have to send the key that stands in the environment variable OFFRAMP_KEY, where there is one. On SIGTERM
    those inside are answered first.
    """
    from offramp.calibration import monitor
    from offramp.engine import open_runtime
    from offramp.errors import UsageError
    from offramp.protocol import RESERVE
    from offramp.protocol.http import Limits, build_app, run_app
    from offramp.protocol.page import add_page
    from offramp.serving import Service, ladder
    from offramp.serving.watch import open_watch

    if not seconds > 0:
        raise UsageError(f"--seconds is {seconds}; it is above 0")
    if watch is None and (stricter or watch_state is not None):
        raise UsageError("--stricter and --watch-state go with --watch, the share of answers that is compared")
    artifact = ready(model, device, threads)
    rule = chosen_policy(artifact, policy, threshold)
    levels = (rule,) if strictest is None else ladder(rule, strictest)
    runtime = open_runtime("torch", precision, threads)
    service = Service(artifact.model, levels[0], levels[1:], runtime, batch, queue, RESERVE)
    called = Path(model).name if name is None else name
    tls = certificate, private_key, client_authority
    beside = []
    if grpc_port is not None:
        from offramp.protocol.grpc import grpc_beside

        beside.append(grpc_beside(host, grpc_port, *tls))
    watching = None
    if watch is not None:
        watching = open_watch(service, monitor(rule), watch, stricter, watch_state)
    app = build_app(service, called, Limits(seconds=seconds), os.environ.get("OFFRAMP_KEY"), beside, watching)
    add_page(app, called, service, artifact.table, artifact.costs, _examples(artifact.model, examples))
    scheme = "http" if certificate is None else "https"
    err.print(
        f"{called} is served at {scheme}://{host}:{port}/v2/models/{called}, with a page at {scheme}://{host}:{port}/"
    )
    run_app(app, host, port, *tls, seconds)


def _examples(model: EarlyExitModel, folder: Path | None) -> dict[str, bytes]:
    """Files to choose from on the page, by name."""
    from offramp.errors import DataError
    from offramp.inputs import ImageInput

    if folder is not None:
        found = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
        if not found:
            raise DataError(f"there is no file in {folder}")
        return found
    if not isinstance(model.input, ImageInput):
        return {}
    from sklearn.datasets import load_sample_images

    return {Path(file).name: Path(file).read_bytes() for file in load_sample_images().filenames}
