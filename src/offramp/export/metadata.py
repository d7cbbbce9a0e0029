"""What an exported file says about itself."""

from __future__ import annotations

import json

from offramp.model import EarlyExitModel
from offramp.policies import Policy, policy_to_json
from offramp.versions import versions


def describe(model: EarlyExitModel, policy: Policy) -> str:
    """The metadata entry ``offramp``, as JSON."""
    return json.dumps(
        {
            "task": model.task.name,
            "classes": model.classes,
            "data_config": {k: v for k, v in model.data_config.items() if k != "crop_mode"},
            "exits": [{"after": a, "head": h} for a, h in zip(model.after, model.head_names, strict=True)],
            "policy": policy_to_json(policy),
            "versions": versions(),
        }
    )
