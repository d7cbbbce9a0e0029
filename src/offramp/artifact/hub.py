"""Artifacts on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from offramp.artifact._fetch import sentence
from offramp.artifact.saved import CARD, save
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.types import CostTable, ExitTable


def push(
    model: EarlyExitModel,
    repository: str,
    policy: Policy | None = None,
    table: ExitTable | None = None,
    costs: CostTable | None = None,
    record: Mapping[str, Any] | None = None,
    *,
    private: bool = False,
    message: str = "Offramp model",
    token: str | None = None,
) -> str:
    """Upload a model as an artifact to the hub, with its card; ``load("hf-hub:owner/name")`` brings it back.

    The repository is made where there is none; what else it holds stays as it is.

    Args:
        model: as for ``save``.
        repository: ``owner/name``.
        policy: as for ``save``.
        table: as for ``save``.
        costs: as for ``save``.
        record: as for ``save``.
        private: whether a new repository can be seen by its owner alone.
        message: of the commit.
        token: of the hub; the one that was logged in with if not given.

    Returns:
        The address of the commit.

    Raises:
        UsageError: a name that is none, or what ``save`` cannot save.
        DataError: no network, or no right to write there.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        save(model, folder, policy, table, costs, record)
        card = (folder / CARD).read_text()
        (folder / "README.md").write_text(_front_matter(model) + card)
        api = hub.HfApi(token=token)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        except HFValidationError as error:
            raise UsageError(f"{repository!r} is no name of a repository: {sentence(error)}") from error
        except (HfHubHTTPError, OSError) as error:
            raise DataError(f"{repository} could not be written: {sentence(error)}") from error
    return str(done)


def _front_matter(model: EarlyExitModel) -> str:
    """What the hub's pages and searches read."""
    lines = ["library_name: offramp", "tags:", "- offramp", "- early-exit", "- timm"]
    if model.task.name == "classification" and model.input.noun == "images":
        lines.append("pipeline_tag: image-classification")
    return "\n".join(["---", *lines, "---", "", ""])
