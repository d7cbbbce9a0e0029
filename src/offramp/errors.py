"""What goes wrong, in one clear sentence each, with the exit code that the command line answers."""


class OfframpError(Exception):
    """The base of every error that Offramp raises on purpose; the message is one sentence for a person."""

    exit_code = 1

    def __init__(self, sentence: str) -> None:
        # what a reading process of torch's raises is built again where it is waited for, from a page of traceback
        super().__init__(sentence.rstrip().rpartition(f"{type(self).__module__}.{type(self).__qualname__}: ")[2])


class UsageError(OfframpError, ValueError):
    """What was asked for cannot be: an unknown name, a number out of range, options that exclude each other."""

    exit_code = 2


class DataError(OfframpError):
    """What was read cannot be used: no image, an empty folder, a wrong shape, values that are no numbers."""


class ArtifactError(DataError):
    """A saved model, policy or table is damaged, foreign, or newer than this version of Offramp."""


class GoalError(OfframpError):
    """A goal that this model cannot reach on this data; the sentence says how far it comes."""


class Notice(UserWarning):
    """Something was done in another way than was asked for; one sentence, which the command line prints on stderr."""
