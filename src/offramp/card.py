"""The card of an artifact: what a person wants to know before running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from offramp.policies import Policy, policy_to_json


def card(config: Mapping[str, Any], policy: Policy | None) -> str:
    """Markdown from the configuration and the policy of an artifact."""
    exits = "\n".join(f"- after block {e['after']}: {e['head']}" for e in config["exits"])
    record = json.dumps(config["record"], indent=1)
    rule = "No policy is stored." if policy is None else f"```json\n{json.dumps(policy_to_json(policy), indent=1)}\n```"
    return f"""# {config["backbone"]["name"]} with {len(config["exits"])} early exits

A {config["task"]} model of Offramp {config["offramp"]}. Input: {config["data_config"]["input_size"]}
(channels, height, width), mean {config["data_config"]["mean"]}, standard deviation {config["data_config"]["std"]}.

## Exits
{exits}
- final: the backbone's own classifier

## Policy
{rule}

## Where it comes from
```json
{record}
```
"""
