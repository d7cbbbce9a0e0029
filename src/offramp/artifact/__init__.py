"""Artifacts: a trained model as a folder of safetensors and JSON. Nothing in it can run code."""

from offramp.artifact.saved import Artifact, load, load_artifact, refuse_foreign, round_to_fp16, save
from offramp.artifact.tables import load_table, save_table

__all__ = [
    "Artifact",
    "load",
    "load_artifact",
    "load_table",
    "refuse_foreign",
    "round_to_fp16",
    "save",
    "save_table",
]
