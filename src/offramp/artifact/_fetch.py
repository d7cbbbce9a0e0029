"""An artifact of the Hugging Face hub, as a folder here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from offramp.errors import ArtifactError

PREFIX = "hf-hub:"


def fetched(name: str, files: Sequence[str]) -> Path:
    """The local copy of some files of a repository.

    Args:
        name: ``hf-hub:owner/name``, as timm writes it, or ``hf-hub:owner/name@revision``.
        files: their names; nothing else is fetched.

    Raises:
        ArtifactError: no such repository, no right to read it, or no network and no copy.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        return Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(f"{name} could not be fetched: {sentence(error)}") from error


def sentence(error: Exception) -> str:
    """What the hub's errors say, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
