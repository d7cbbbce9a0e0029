"""The page of a server: where a picture leaves, and why; what thresholds buy."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy, replay, spent
from offramp.policies.threshold import Threshold
from offramp.protocol.form import Form
from offramp.serving.service import Service
from offramp.tasks import Task
from offramp.types import Chain, CostTable, ExitTable

try:
    from fastapi import FastAPI, Response
except ImportError as error:
    raise UsageError("serving over HTTP needs more packages: pip install 'offramp[serve]'") from error

_POINTS = 51
"""Thresholds of the frontier."""
_ALLOWED = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data: 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def frontier(table: ExitTable, costs: CostTable, policy: Policy, model: EarlyExitModel) -> list[dict[str, float]]:
    """What one threshold for all exits that a policy asks is worth, on a table.

    Args:
        table: every exit's output on validation data.
        costs: what the parts cost.
        policy: whose exits, and whose score.
        model: whose table it is.

    Returns:
        for each threshold from 0 to 1 ``threshold``, ``metric``, and ``macs``, the share of the static model's.
    """
    found = []
    for threshold in np.linspace(0, 1, _POINTS):
        own = tuple(float(threshold) if k in policy.heads else None for k in range(len(model.exits)))
        rule = Threshold(own, policy.score, getattr(policy, "temperatures", ()))
        found.append({"threshold": float(threshold), **_worth(table, costs, rule, model.task)})
    return found


def add_page(
    app: FastAPI,
    name: str,
    service: Service,
    table: ExitTable | None = None,
    costs: CostTable | None = None,
    examples: Mapping[str, bytes] | None = None,
) -> None:
    """A page at ``/`` of an application: a file is dropped, and where it leaves is shown. It fetches nothing else.

    Args:
        app: from ``build_app``.
        name: the model's name in its paths.
        service: who answers; the page shows the thresholds that it has now.
        table: every exit's output on validation data; without it no frontier is shown.
        costs: what the parts cost; without it neither costs nor a frontier are.
        examples: files to choose from, by name.
    """
    model, policy = service.model, service.levels[0]
    frame = (files("offramp.protocol") / "page.html").read_text("utf-8").replace("{{name}}", html.escape(name))
    contents = list((examples or {}).values())
    shares = None if costs is None else [cost / costs.macs.static for cost in costs.in_chain().to_exit(policy.heads)]
    same = {
        "model": name,
        "input": Form(model, 1).file,
        "metric": model.task.metric,
        "unit": model.task.unit,
        "score": policy.score,
        "frontier": [] if table is None or costs is None else frontier(table, costs, policy, model),
        "policy": None if table is None or costs is None else _worth(table, costs, policy, model.task),
        "examples": list(examples or {}),
    }

    @app.get("/", response_model=None)
    async def page() -> Response:
        said = json.dumps({**same, "exits": _exits(service.levels[0], model.chain, shares)}).replace("<", "\\u003c")
        headers = {"Content-Security-Policy": _ALLOWED, "Cache-Control": "no-store"}
        return Response(frame.replace("{{about}}", said), media_type="text/html", headers=headers)

    @app.get("/examples/{number:int}", response_model=None)
    async def example(number: int) -> Response:
        if not 0 <= number < len(contents):
            return Response(status_code=404)
        return Response(contents[number], media_type="application/octet-stream")


def _worth(table: ExitTable, costs: CostTable, policy: Policy, task: Task) -> dict[str, float]:
    """The metric, and the share of the static model's multiply-adds."""
    trace = replay(policy, table, task)
    metric = float(task.quality(trace.output, table.targets).double().mean())
    return {"metric": metric, "macs": float(spent(policy, trace, costs.in_chain()).mean()) / costs.macs.static}


def _exits(policy: Policy, chain: Chain, shares: Sequence[float] | None) -> list[dict[str, Any]]:
    """The exits that are asked, the final one last."""
    final = len(chain.after) - 1
    return [
        {
            "exit": k,
            "after": chain.after[k],
            "path": chain.paths[k],
            "threshold": policy.thresholds[k] if isinstance(policy, Threshold) and k != final else None,
            "macs": None if shares is None else shares[k],
        }
        for k in (*policy.heads, final)
    ]
