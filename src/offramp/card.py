"""The card of an artifact: what a person wants to know before running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from offramp.inputs import input_from_json
from offramp.policies import Policy, policy_to_json


def card(config: Mapping[str, Any], policy: Policy | None) -> str:
    """Markdown from the configuration and the policy of an artifact."""
    recipe = config["record"].get("recipe", {})
    exits = [f"- after block {e['after']}{_on(e)}: {e['head']}" for e in config["exits"]]
    paragraphs = [
        f"# {recipe.get('name') or config['backbone']['name']}",
        recipe.get("about") or "",
        f"A {config['task']} model of Offramp {config['offramp']}: timm's {config['backbone']['name']} with "
        f"{len(config['exits'])} early exits.",
        f"Input: {input_from_json(config['input']).about()}.",
        "" if config["classes"] is None else f"Classes: {', '.join(config['classes'])}.",
        "## Exits",
        "\n".join([*exits, "- final: the backbone's own classifier"]),
        *_paths(config),
        "## Policy",
        *_policy(policy),
        "## Where it comes from",
        _json(config["record"]),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _on(place: Mapping[str, Any]) -> str:
    return "" if place.get("path") is None else f" of path {place['path']}"


def _paths(config: Mapping[str, Any]) -> list[str]:
    """The ways through the weights, where there are several."""
    if not config["paths"]:
        return []
    ways = [f"- path {number}: {_part(part)}" for number, part in enumerate(config["paths"])]
    lines = [*ways, f"- path {len(ways)}: the backbone as it is"]
    if config["link"]["name"] != "none":
        lines.append(f"- link from each to the next: {_part(config['link'])}")
    if config["router"] is not None:
        lines.append(f"- router: {_part(config['router'])}")
    return ["## Paths", "\n".join(lines)]


def _part(part: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in part["options"].items())
    return part["name"] + (f" ({options})" if options else "")


def _policy(policy: Policy | None) -> list[str]:
    if policy is None:
        return ["No policy is stored."]
    values = policy_to_json(policy)
    expected = values.get("provenance", {}).get("expected", {})
    intervals = expected.get("intervals", {})
    lines = []
    for name, value in expected.items():
        if name != "intervals":
            within = f" ({_number(intervals[name])})" if name in intervals else ""
            lines.append(f"- {name.replace('_', ' ')}: {_number(value)}{within}")
    heading = ["On the data it was calibrated on:", "\n".join(lines)] if lines else []
    return [*heading, _json(values)]


def _number(value: Any) -> str:
    return ", ".join(f"{v:.4g}" for v in value) if isinstance(value, list) else f"{value:.4g}"


def _json(values: Any) -> str:
    return f"```json\n{json.dumps(values, indent=1)}\n```"
