"""What is in these files: an opened model's answers, a row for each."""

from offramp.answers.opened import Opened, answered, open_file, open_model

__all__ = ["Opened", "answered", "open_file", "open_model"]
