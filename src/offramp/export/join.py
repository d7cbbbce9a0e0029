"""Pieces joined to one graph that leaves early by itself: nested ``If`` nodes, and only who stays goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from offramp.export.graph import Body


@dataclass(frozen=True)
class Pieces:
    """What a model and its policy are made of.

    Args:
        asked: the indices of the exits that the graph has.
        segments: the graphs that lead to each of them, and to the final exit.
        asks: head and policy, a graph an exit.
        final: the final exit.
        gated: whether the head of an exit runs only where its threshold can be reached.
        final_exit: the index of the final exit.
    """

    asked: tuple[int, ...]
    segments: Sequence[ir.Graph]
    asks: Sequence[ir.Graph]
    final: ir.Graph
    gated: bool
    final_exit: int


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


class Join:
    """Builds the graph from its pieces.

    Args:
        pieces: the pieces; each is used up.
        numbers: the graph's inputs for the policy's numbers, in their order.
        max_exit: the graph's input that says where everybody leaves at the latest.
        thresholds: which of the numbers are the thresholds, where heads are gated.
        compares: whether scores compare with the exit before.
    """

    def __init__(
        self, pieces: Pieces, numbers: list[ir.Value], max_exit: ir.Value, thresholds: ir.Value | None, compares: bool
    ) -> None:
        self.pieces, self.numbers, self.max_exit, self.compares = pieces, numbers, max_exit, compares
        self.thresholds = thresholds

    def enter(self, body: Body, place: int, inside: Inside) -> list[ir.Value]:
        """Run a segment and its exit; who stays enters the next one. Gives the answers of all samples."""
        inside = replace(inside, h=body.call(self.pieces.segments[place], inside.h))
        if place == len(self.pieces.asked):
            output, score = body.call(self.pieces.final, [*inside.h, *inside.previous])
            return _written(body, inside, [output, self._exit(body, inside, self.pieces.final_exit), score])
        inside, keep = self._ask(body, place, inside)
        stay = body.op("Reshape", body.op("NonZero", keep), body.number([-1]))
        somebody = body.op("Greater", body.op("Size", stay), body.number(0))

        def go_on(branch: Body) -> list[ir.Value]:
            def kept(values: list[ir.Value]) -> list[ir.Value]:
                return [branch.op("Gather", value, stay, axis=0) for value in values]

            left = Inside(
                kept(inside.h), kept([inside.rows])[0], inside.answers, kept(inside.previous), kept(inside.state)
            )
            return self.enter(branch, place + 1, left)

        return body.choose(somebody, go_on, lambda branch: inside.answers)

    def _ask(self, body: Body, place: int, inside: Inside) -> tuple[Inside, ir.Value]:
        """Ask an exit: the answers written down, and who stays, bool ``(n,)``."""
        exit = self.pieces.asked[place]

        def ask(branch: Body) -> list[ir.Value]:
            values = [*inside.h, *self.numbers, *inside.previous, *inside.state]
            answer, score, leave, output, *state = branch.call(self.pieces.asks[place], values)
            written = _written(branch, inside, [answer, self._exit(branch, inside, exit), score])
            beyond = branch.op("Less", branch.number(exit), self.max_exit)
            keep = branch.op("And", branch.op("Not", leave), beyond)
            return [*written, keep, *([output] if self.compares else []), *state]

        def pass_by(branch: Body) -> list[ir.Value]:
            everybody = branch.op("ConstantOfShape", branch.op("Shape", inside.rows), value=_tensor([True], np.bool_))
            return [*inside.answers, everybody]

        if self.thresholds is None:
            values = ask(body)
        else:
            threshold = body.op("Gather", self.thresholds, body.number(exit), axis=0)
            reachable = body.op("LessOrEqual", threshold, body.number(1, np.float32))
            must = body.op("LessOrEqual", self.max_exit, body.number(exit))
            values = body.choose(body.op("Or", reachable, must), ask, pass_by)
        previous, state = (values[4:5], values[5:]) if self.compares else ([], values[4:])
        return replace(inside, answers=values[:3], previous=previous, state=state), values[3]

    def _exit(self, body: Body, inside: Inside, exit: int) -> ir.Value:
        return body.op("ConstantOfShape", body.op("Shape", inside.rows), value=_tensor([exit], np.int64))


def _written(body: Body, inside: Inside, values: list[ir.Value]) -> list[ir.Value]:
    """Answers with those of who is inside in their rows; a later exit writes over an earlier one."""
    rows = body.op("Unsqueeze", inside.rows, body.number([1]))
    return [body.op("ScatterND", whole, rows, value) for whole, value in zip(inside.answers, values, strict=True)]


def _tensor(value: object, dtype: type) -> ir.TensorProtocol:
    return ir.tensor(np.array(value, dtype))
