"""Watching a promise after it was made: a test that may be looked at after every answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from offramp.calibration.losses import IN_WORDS, beyond, check_loss, in_words, loss_of
from offramp.errors import ArtifactError, DataError, UsageError
from offramp.policies import Policy
from offramp.tasks import Task, get_task

WATCHED = tuple(IN_WORDS)
"""What a monitor can watch: the losses of promises, and being wrong, for which a limit has to be given."""
_BLOCK = 4096


@dataclass(frozen=True)
class Monitor:
    """A test that the mean loss of a stream is at most ``risk``, with what it has seen so far.

    Money is bet on every loss being above ``risk``. While it is not, nobody is expected to win, so capital that starts
    at 1 ever reaches 1 / ``level`` with a probability of at most ``level``, however long the stream and however often
    one looks (Ville's inequality; testing by betting: 2010.09686, for a risk that was promised: 2110.06177). When it
    does reach it, that is an alarm, and it stays.

    Exactly: each loss has a mean of at most ``risk`` given those before it. Losses may depend on each other, and need
    not come from one distribution. Losses that are sorted, the bad ones together, are a shift while they last.

    The bets are our choice. A part of the capital is put aside for each future answer and starts to bet there, 1 / (1 +
    log(1 + t)) being left after t answers, so that a stream that was fine for long does not use up what would notice a
    shift; that costs a delay that grows with the logarithm of its length only. (Summing tests over their starts is what
    e-detectors do, 2203.03532; with parts that sum to 1 the level is that of the whole stream.) Each part is split over
    stakes of ½, ¼, … of itself down to an eighth of ``risk``, from large shifts to small ones. Nothing is fitted: every
    bet is known before the first answer.

    Args:
        risk: the mean loss that was promised, between 0 and 1.
        level: how often an alarm may be false, once for the whole stream, between 0 and 1.
        loss: what is watched: a loss of ``calibration.losses``, such as ``disagreement``, or ``error``, being
            wrong.
        digest: of the table that the promise was made on, if one was.
        samples: how many answers it has seen.
        total: the sum of their losses.
        capital: of each stake, what has started to bet so far has become; it stands still after an alarm.
        peak: the most that all capital together has ever been.
        at: the number of the answer at which there was an alarm, 1 for the first; None where there was none.

    Raises:
        UsageError: a risk or level out of its range, an unknown loss.
    """

    risk: float
    level: float = 0.05
    loss: str = "disagreement"
    digest: str | None = None
    samples: int = 0
    total: float = 0.0
    capital: tuple[float, ...] = ()
    peak: float = 1.0
    at: int | None = None

    def __post_init__(self) -> None:
        check_loss(self.loss, "loss to monitor", WATCHED)
        if not 1e-12 <= self.risk < 1:
            raise UsageError(f"risk is {self.risk:g}; it is a share of cases, between 1e-12 and 1")
        if not 1e-12 <= self.level < 1:
            raise UsageError(f"level is {self.level:g}; it is the chance of a false alarm, between 1e-12 and 1")

    @property
    def alarm(self) -> bool:
        """Whether there was an alarm."""
        return self.at is not None

    @property
    def mean(self) -> float | None:
        """The mean loss of all answers so far, None before the first."""
        return self.total / self.samples if self.samples else None

    @property
    def wealth(self) -> float:
        """What a capital of 1 has become: the evidence against the promise; until the alarm, where there was one."""
        seen = self.samples if self.at is None else self.at
        return _spread(self.capital) + _left(seen)

    @property
    def confidence(self) -> float:
        """How sure it is that the promise does not hold, 0 to 1; an alarm is 1 − ``level`` or more."""
        return 1 - 1 / self.peak

    @property
    def sentence(self) -> str:
        """What there is to say, for a person."""
        what, seen = in_words(self.loss), f"{self.samples:,} {'answer' if self.samples == 1 else 'answers'}"
        if self.mean is None:
            return f"No answers yet: {what} is allowed in at most {100 * self.risk:g} % of cases."
        if self.at is None:
            allowed = f"at most {100 * self.risk:g} % is allowed"
            return f"No alarm after {seen}: {what} in {100 * self.mean:.3g} % of cases; {allowed}."
        sure = f"with {100 * (1 - self.level):g} % confidence, {what} in more than {100 * self.risk:g} % of cases"
        return f"Alarm at answer {self.at:,} of {self.samples:,}: {sure}; {100 * self.mean:.3g} % of all so far."

    def update(self, losses: ArrayLike | Tensor) -> Monitor:
        """The monitor after more answers; one by one or all at once is the same.

        Args:
            losses: of each answer, ``(n,)``, between 0 and 1, in the order in which they came.

        Raises:
            DataError: losses of another shape, not finite, below 0 or above 1.
        """
        found = torch.as_tensor(losses, dtype=torch.float64).detach().cpu().numpy()
        if found.ndim != 1:
            raise DataError(f"losses have the shape {found.shape}; they come as (n,), one for each answer")
        wrong = np.flatnonzero(~((found >= 0) & (found <= 1)))
        if len(wrong):
            raise DataError(f"loss {wrong[0]} is {found[wrong[0]]:g}; losses lie between 0 and 1")
        after = self
        for start in range(0, len(found), _BLOCK):
            after = after._bet(found[start : start + _BLOCK])
        return after

    def see(
        self, output: Tensor, full: Tensor | None = None, targets: Tensor | None = None, task: str | Task | None = None
    ) -> Monitor:
        """The monitor after more answers, given as outputs.

        Args:
            output: what was answered, ``(B, num_outputs)``.
            full: what the full model says of the same samples, ``(B, num_outputs)``; ``error`` and
                ``off-by-3`` do not need it.
            targets: what is true, ``(B,)``; ``disagreement`` does not need it.
            task: what an output means, classes if not given.

        Raises:
            UsageError: what the loss asks for is missing; a loss for classes and another task.
            DataError: outputs that are no numbers; parts of different lengths.
        """
        meaning = get_task("classification" if task is None else task)
        for name, other in (("full", full), ("targets", targets)):
            if other is not None and len(other) != len(output):
                raise DataError(f"{len(output)} answers and {len(other)} {name} are not of the same samples")
        if output.isnan().any() or (full is not None and full.isnan().any()):
            raise DataError("some outputs are no numbers (NaN)")
        if self.loss != "error":
            limit = beyond(self.loss)
            if limit is not None and limit[0]:
                full = output  # what the full model says is not asked
            if full is None:
                raise UsageError(f"the loss {self.loss!r} asks what the full model says: give full too")
            return self.update(loss_of(self.loss, output, full, targets, meaning))
        if targets is None or not meaning.classes:
            raise UsageError("the loss 'error' asks what is true of classes: give their targets")
        return self.update((meaning.answer(output) != targets).double())

    def check_same(self, asked: Monitor, where: str) -> None:
        """Raise ``UsageError`` unless what was seen before is about the promise that is asked for."""
        for what in ("risk", "level", "loss", "digest"):
            was, now = getattr(self, what), getattr(asked, what)
            if was != now:
                raise UsageError(
                    f"{where} watches another promise: its {what} is {was}, not {now}; choose another file"
                )

    def to_json(self) -> dict[str, Any]:
        """As plain values, to go on from another time."""
        return {"monitor": 1, **asdict(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Monitor:
        """Back from plain values. Raises ``ArtifactError`` where they are not those of a monitor."""
        given = dict(values)
        try:
            if given.pop("monitor", None) != 1:
                raise UsageError("it has no 'monitor': 1")
            if odd := given.keys() ^ {field.name for field in fields(Monitor)}:
                raise UsageError(f"{min(odd, key=str)!r} is missing, or has no place in it")
            found = TypeAdapter(Monitor).validate_json(json.dumps(given), strict=True)
            _check_state(found)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise ArtifactError(f"this is no monitor: {where}{': ' if where else ''}{fault['msg']}") from error
        except UsageError as error:
            raise ArtifactError(f"this is no monitor: {error}") from error
        return found

    def _bet(self, losses: np.ndarray) -> Monitor:
        """Bet on some losses, at least one."""
        seen = replace(self, samples=self.samples + len(losses), total=self.total + float(losses.sum()))
        if self.alarm:
            return seen
        stakes = _stakes(self.risk)
        steps = self.samples + np.arange(1, len(losses) + 1)
        # what has started to bet is (what it was + what starts here) × the factor of this loss, step by step: solved
        # for all steps at once in logarithms, which neither overflow nor vanish
        grown = np.log1p(stakes[:, None] * (losses / self.risk - 1)).cumsum(1)
        before = np.hstack([np.zeros((len(stakes), 1)), grown[:, :-1]])
        with np.errstate(divide="ignore", over="ignore"):
            held = np.log(np.array(self.capital or [0.0] * len(stakes)))[:, None]
            joined = np.logaddexp.accumulate(np.hstack([held, np.log(_started(steps)) - before]), 1)[:, 1:]
            capital = np.exp(grown + joined)
        wealth = capital.mean(0) + _left(steps)
        alarms = np.flatnonzero(wealth >= 1 / self.level)
        last = int(alarms[0]) if len(alarms) else len(losses) - 1
        peak = max(self.peak, float(wealth[: last + 1].max()))
        at = int(steps[last]) if len(alarms) else None
        return replace(seen, capital=tuple(capital[:, last].tolist()), peak=peak, at=at)


def monitor(policy: Policy, *, level: float = 0.05, risk: float | None = None, loss: str | None = None) -> Monitor:
    """A monitor of what a policy promises, or of a limit of your own.

    Args:
        policy: the policy; what it promises stands in its ``provenance``, where ``calibrate(..., risk=...)`` put it.
            A promise by ``ucb`` or ``ltt`` is watched. ``crc`` promises a mean over calibration sets, which one policy
            may exceed, and ``naive`` nothing.
        level: how often an alarm may be false, once for the whole stream. The promise itself fails with a probability
            of 1 − its confidence; such an alarm is a true one.
        risk: another limit than the promised one.
        loss: what ``risk`` is a share of, if that is given: one of ``WATCHED``; the policy's own loss, or
            ``disagreement``, if not given.

    Raises:
        UsageError: a policy without a promise that can be watched, and no ``risk``; ``loss`` without ``risk``.
        ArtifactError: a promise that is damaged.
    """
    promise = getattr(policy, "provenance", {}).get("guarantee", {})
    try:
        method, kind, digest = promise.get("method"), promise.get("loss", "disagreement"), promise.get("digest")
        made = Monitor(promise.get("risk", 0.5), loss=kind, digest=None if digest is None else str(digest))
    except (AttributeError, TypeError, UsageError) as error:
        raise ArtifactError(f"the policy's promise is damaged: {error}") from error
    if risk is not None:
        return replace(made, risk=risk, level=level, loss=kind if loss is None else loss)
    if loss is not None:
        raise UsageError(f"the loss {loss!r} needs a limit of its own: give risk too")
    if method == "crc":
        raise UsageError("a promise by 'crc' is about the mean over calibration sets: give risk, the limit to watch")
    if method not in ("ucb", "ltt") or "risk" not in promise:
        raise UsageError("this policy promises nothing: calibrate it for a risk, or give risk, the limit to watch")
    return replace(made, level=level)


def _stakes(risk: float) -> np.ndarray:
    """Shares of capital that are put at stake: ½, ¼, … down to an eighth of the risk."""
    return 0.5 ** np.arange(1, 1 + math.ceil(math.log2(8 / risk)))


def _left(steps: Any) -> Any:
    """The part of the first capital that has not started to bet after so many answers."""
    return 1 / (1 + np.log1p(steps))


def _started(steps: np.ndarray) -> np.ndarray:
    """The part that starts to bet at an answer, 1 for the first: the difference of ``_left``, without cancellation."""
    return np.log1p(1 / steps) * _left(steps - 1) * _left(steps)


def _spread(capital: Sequence[float]) -> float:
    return math.fsum(capital) / len(capital) if capital else 0.0


def _check_state(found: Monitor) -> None:
    """Raise ``UsageError`` for numbers that no stream leads to."""
    numbers = (found.total, found.peak, *found.capital)
    if not all(math.isfinite(x) and x >= 0 for x in numbers) or not found.total <= found.samples < 2**53:
        raise UsageError("its sums are not those of losses between 0 and 1")
    if len(found.capital) != (len(_stakes(found.risk)) if found.samples else 0):
        raise UsageError(f"it has {len(found.capital)} stakes")
    due = found.peak >= 1 / found.level
    if found.peak < 1 or due != found.alarm or (found.at is not None and not 1 <= found.at <= found.samples):
        raise UsageError("its alarm does not follow from its capital")
