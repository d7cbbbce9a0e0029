"""Which of timm's models can be cut?

Takes the smallest model of every timm model class, cuts it, and compares the cut model with the uncut one on a batch of
one and of three images (largest difference at most 1e-4). Prints how many are equal, and time and reason for each that
is not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from typing import Any

import timm
import torch

from benchmarks import publish
from offramp._progress import track
from offramp.backbones import cut
from offramp.errors import UsageError

ATOL = 1e-4


def smallest_of_each_class() -> dict[str, tuple[int, str]]:
    """For each model class its smallest model, by parameters: found without memory for weights."""
    found: dict[str, tuple[int, str]] = {}
    names = timm.list_models()
    for name in track(names, "looking", len(names)):
        with torch.device("meta"):
            try:
                model = timm.create_model(name)
            except Exception:
                continue  # a few models cannot be built without memory; another of their class can
        kind = f"{type(model).__module__.rpartition('.')[2]}.{type(model).__name__}"
        entry = (sum(p.numel() for p in model.parameters()), name)
        found[kind] = min(found.get(kind, entry), entry)
    return found


def check(name: str) -> dict[str, Any]:
    """Cut one model and compare."""
    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        model = timm.create_model(name).eval()
        backbone = cut(model)
        size = model.pretrained_cfg["input_size"]
        difference = 0.0
        with torch.no_grad():
            for batch in (1, 3):
                x = torch.randn(batch, *size)
                h = backbone.stem(x)
                for tap, step in zip([*backbone.taps, None], backbone.steps, strict=True):
                    h = step(h)
                    if tap is not None and backbone.tokens(h, tap).shape != (batch, tap.tokens, tap.dim):
                        raise UsageError(f"after step {tap.after} the tokens are not as the tap says")
                difference = max(difference, float((backbone.final(h) - model(x)).abs().max()))
        row: dict[str, Any] = {"equal": difference <= ATOL, "difference": difference, "cuts": len(backbone.taps)}
        if difference > ATOL:
            row["reason"] = f"differs by {difference:.2g}"
        row["family"] = type(backbone).__name__
    except Exception as error:
        row = {"equal": False, "reason": " ".join(f"{type(error).__name__}: {error}".split())[:240]}
    return {"model": name, **row, "seconds": round(time.perf_counter() - start, 2)}


def check_apart(name: str, seconds: float, gigabytes: float) -> dict[str, Any]:
    """The same in a process of its own, so that one model can take neither the memory nor the time of all."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        limit = int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        theirs.send(check(name))

    process = context.Process(target=work)
    process.start()
    theirs.close()
    try:
        row = ours.recv() if ours.poll(seconds) else {"model": name, "equal": False, "reason": f"over {seconds:.0f} s"}
    except EOFError:
        row = {"model": name, "equal": False, "reason": "its process ended, for want of memory most likely"}
    process.kill()
    process.join()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="these models instead of the smallest of each class")
    parser.add_argument("--seconds", type=float, default=240, help="the most that one model may take")
    parser.add_argument("--gigabytes", type=float, default=21, help="the most memory that one model may take")
    args = parser.parse_args()
    if args.only:
        names = {name: name for name in args.only}
    else:
        names = {kind: name for kind, (_, name) in sorted(smallest_of_each_class().items())}
    rows = []
    for kind, name in track(names.items(), "cutting", len(names)):
        rows.append({"class": kind, **check_apart(name, args.seconds, args.gigabytes)})
        if not rows[-1]["equal"]:
            print(f"{name}: {rows[-1]['reason']}", file=sys.stderr)
    equal = sum(row["equal"] for row in rows)
    result = {"classes": len(rows), "equal": equal, "atol": ATOL, "rows": rows}
    if args.only:
        print(result)
    else:
        publish("backbones", result)


if __name__ == "__main__":
    main()
