"""Graphs joined to one graph that leaves early by itself: a chain of ``If`` nodes, and only who stays goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from offramp.export.graph import Body
from offramp.export.parts import Tensors


@dataclass(frozen=True)
class Shapes:
    """Examples of what there is after an exit, the sample first.

    Args:
        h: the state of the backbone.
        previous: the output of the exit, where a score compares with it.
        state: what the policy remembers.
    """

    h: Tensors
    previous: Tensors
    state: Tensors


@dataclass(frozen=True)
class Graphs:
    """What a model and its policy are made of.

    Args:
        asked: the indices of the exits that the graph has.
        segments: the graphs that lead to each of them, and to the final exit.
        asks: head and policy, one graph per exit.
        final: the final exit.
        gated: whether the head of an exit runs only where its threshold can be reached.
        final_exit: the index of the final exit.
        shapes: what there is after each exit.
        prepare: what prepares samples, if anything.
    """

    asked: tuple[int, ...]
    segments: Sequence[ir.Graph]
    asks: Sequence[ir.Graph]
    final: ir.Graph
    gated: bool
    final_exit: int
    shapes: Sequence[Shapes]
    prepare: ir.Graph | None = None


@dataclass(frozen=True)
class Inside:
    """The samples that have not left, ``n`` of ``B``, and all answers so far.

    Args:
        h: the state of the backbone, ``n`` samples first.
        rows: where they stand in the batch, ``(n,)``.
        answers: output ``(B, num_outputs)``, exit ``(B,)``, score ``(B,)``.
        previous: the output of the exit asked before ``(n, num_outputs)``, where a score compares with it.
        state: what the policy remembers of them.
    """

    h: list[ir.Value]
    rows: ir.Value
    answers: list[ir.Value]
    previous: list[ir.Value]
    state: list[ir.Value]


@dataclass(frozen=True)
class _Asked:
    """What an exit gives for the samples inside: one branch of an ``If``.

    Args:
        answers: of all samples.
        keep: who stays, ``(n,)``.
        previous: the exit's output, where a score compares with it.
        state: what the policy remembers.
    """

    answers: list[ir.Value]
    keep: ir.Value
    previous: list[ir.Value]
    state: list[ir.Value]

    def values(self) -> list[ir.Value]:
        """In a row, as a branch gives them."""
        return [*self.answers, self.keep, *self.previous, *self.state]

    @staticmethod
    def of(values: Sequence[ir.Value], previous: int) -> _Asked:
        """Back from a row with so many values for ``previous``."""
        output, left, score, keep, *rest = values
        return _Asked([output, left, score], keep, rest[:previous], rest[previous:])


class Join:
    """Builds the graph from its graphs.

    No ``If`` stands inside another, and weights stay in the main graph: ONNX Runtime packs the weights that a branch
    uses only where they lie one graph further out, and a weight within nested branches it holds once a level.

    Args:
        graphs: the graphs; each is used up.
        numbers: the graph's inputs for the policy's numbers, in their order.
        max_exit: the graph's input that says where everybody leaves at the latest.
        thresholds: which of the numbers are the thresholds, where heads are gated.
        compares: whether scores compare with the exit before.
    """

    def __init__(
        self, graphs: Graphs, numbers: list[ir.Value], max_exit: ir.Value, thresholds: ir.Value | None, compares: bool
    ) -> None:
        self.graphs, self.numbers, self.max_exit, self.compares = graphs, numbers, max_exit, compares
        self.thresholds = thresholds

    def through(self, body: Body, inside: Inside) -> list[ir.Value]:
        """From the parts of a batch to the answers of all."""
        for place in range(len(self.graphs.asked)):
            inside = self._leave(body, place, inside)
        last = len(self.graphs.asked)

        def final(branch: Body) -> list[ir.Value]:
            h = branch.call(self.graphs.segments[last], self._prepared(branch, last, inside.h))
            output, score = branch.call(self.graphs.final, [*h, *inside.previous])
            return _written(branch, inside, [output, _exit(branch, inside, self.graphs.final_exit), score])

        return body.choose(_somebody(body, inside), final, lambda branch: inside.answers)

    def _leave(self, body: Body, place: int, inside: Inside) -> Inside:
        """Run a segment and ask its exit, if anybody is inside; who stays."""
        somebody = _somebody(body, inside)
        h = body.choose(
            somebody,
            lambda branch: branch.call(self.graphs.segments[place], self._prepared(branch, place, inside.h)),
            lambda branch: [branch.nothing(example) for example in self.graphs.shapes[place].h],
        )
        reached = replace(inside, h=h)
        asked = _Asked.of(
            body.choose(
                self._is_asked(body, self.graphs.asked[place], somebody),
                lambda branch: self._ask(branch, place, reached).values(),
                lambda branch: self._pass_by(branch, place, reached).values(),
            ),
            len(self.graphs.shapes[place].previous),
        )
        return _staying(body, reached, asked)

    def _is_asked(self, body: Body, k: int, somebody: ir.Value) -> ir.Value:
        """Whether the head of exit ``k`` runs: for somebody who can reach its threshold, or must leave."""
        if self.thresholds is None:
            return somebody
        threshold = body.op("Gather", self.thresholds, body.number(k), axis=0)
        reachable = body.op("LessOrEqual", threshold, body.number(1, np.float32))
        must = body.op("LessOrEqual", self.max_exit, body.number(k))
        return body.op("And", somebody, body.op("Or", reachable, must))

    def _ask(self, branch: Body, place: int, inside: Inside) -> _Asked:
        """The head, and what the policy says of its output."""
        k = self.graphs.asked[place]
        given = [*inside.h, *self.numbers, *inside.previous, *inside.state]
        answer, score, leave, output, *state = branch.call(self.graphs.asks[place], given)
        answers = _written(branch, inside, [answer, _exit(branch, inside, k), score])
        beyond = branch.op("Less", branch.number(k), self.max_exit)
        keep = branch.op("And", branch.op("Not", leave), beyond)
        return _Asked(answers, keep, [output] if self.compares else [], state)

    def _pass_by(self, branch: Body, place: int, inside: Inside) -> _Asked:
        """Nobody is asked: everybody stays."""
        shapes = self.graphs.shapes[place]
        keep = branch.op("ConstantOfShape", branch.op("Shape", inside.rows), value=_tensor([True], np.bool_))
        previous, state = ([branch.nothing(example) for example in part] for part in (shapes.previous, shapes.state))
        return _Asked(inside.answers, keep, previous, state)

    def _prepared(self, body: Body, place: int, h: list[ir.Value]) -> list[ir.Value]:
        """What a segment reads; before the first, samples are prepared."""
        return h if place or self.graphs.prepare is None else body.call(self.graphs.prepare, h)


def _staying(body: Body, inside: Inside, asked: _Asked) -> Inside:
    """Who stays, with what belongs to them."""
    stay = body.op("Reshape", body.op("NonZero", asked.keep), body.number([-1]))

    def kept(values: list[ir.Value]) -> list[ir.Value]:
        return [body.op("Gather", value, stay, axis=0) for value in values]

    (rows,) = kept([inside.rows])
    return Inside(kept(inside.h), rows, asked.answers, kept(asked.previous), kept(asked.state))


def _somebody(body: Body, inside: Inside) -> ir.Value:
    return body.op("Greater", body.op("Size", inside.rows), body.number(0))


def _exit(body: Body, inside: Inside, k: int) -> ir.Value:
    return body.op("ConstantOfShape", body.op("Shape", inside.rows), value=_tensor([k], np.int64))


def _written(body: Body, inside: Inside, values: list[ir.Value]) -> list[ir.Value]:
    """Answers with those of who is inside in their rows; a later exit writes over an earlier one."""
    rows = body.op("Unsqueeze", inside.rows, body.number([1]))
    return [body.op("ScatterND", whole, rows, value) for whole, value in zip(inside.answers, values, strict=True)]


def _tensor(value: object, dtype: type) -> ir.TensorProtocol:
    return ir.tensor(np.array(value, dtype))
