"""Policies: who leaves where. A policy is a frozen value; it sees scores and knows no model, runtime or task.

A new policy is one file here and one line in ``offramp.registry.POLICIES``.
"""

from offramp.policies._policy import (
    Policy,
    check_fits,
    load_policy,
    policy_from_json,
    policy_to_json,
    save_policy,
    score_of,
)
from offramp.policies.replay import replay

__all__ = [
    "Policy",
    "check_fits",
    "load_policy",
    "policy_from_json",
    "policy_to_json",
    "replay",
    "save_policy",
    "score_of",
]
