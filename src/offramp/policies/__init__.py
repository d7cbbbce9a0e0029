"""Policies: who leaves where. A policy is a frozen value; it sees scores and knows no model, runtime or task.

A new policy is one file here and one line in ``offramp.registry.POLICIES``.
"""

from offramp.policies._costs import spent
from offramp.policies._policy import Policy, score_of
from offramp.policies._saved import check_fits, load_policy, policy_from_json, policy_to_json, save_policy
from offramp.policies.replay import replay
from offramp.policies.routed import Routed, entries, for_rows, inner_of, into

__all__ = [
    "Policy",
    "Routed",
    "check_fits",
    "entries",
    "for_rows",
    "inner_of",
    "into",
    "load_policy",
    "policy_from_json",
    "policy_to_json",
    "replay",
    "save_policy",
    "score_of",
    "spent",
]
