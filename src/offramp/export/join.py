"""Graphs joined to one graph that leaves early by itself: a chain of ``If`` nodes, and only who stays goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch

from offramp.export.graph import Body, Branch
from offramp.export.parts import Tensors
from offramp.types import Chain


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
class Place:
    """An exit that the graph has, and what leads to it.

    Args:
        k: the index of the exit.
        path: its path.
        segment: what leads to it from the exit before it, or from where its path begins; one graph behind another.
        exit: its head with the policy; the final exit with its score.
        shapes: what there is after it.
        starts: whether its path begins here.
        over: from the last state of the path before to what this one takes over, where paths are linked; likewise.
        taken: an example of that.
        hear: what encodes another modality before the exit is asked, where that may not have been done before.
    """

    k: int
    path: int
    segment: Sequence[ir.Graph]
    exit: ir.Graph
    shapes: Shapes
    starts: bool = False
    over: Sequence[ir.Graph] = ()
    taken: Tensors = ()
    hear: ir.Graph | None = None


@dataclass(frozen=True)
class Graphs:
    """What a model and its policy are made of.

    Args:
        places: the exits, in the order of the chain, the final exit last.
        chain: where all exits of the model stand.
        gated: whether the head of an exit runs only where its threshold can be reached.
        prepare: what prepares samples, if anything.
        route: the router, where the policy asks it.
        routed: examples of what it gives.
        begin: what a policy remembers at first, where samples may enter in the middle.
    """

    places: Sequence[Place]
    chain: Chain
    gated: bool
    prepare: ir.Graph | None = None
    route: ir.Graph | None = None
    routed: Tensors = ()
    begin: ir.Graph | None = None


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
        self.entry: ir.Value | None = None
        """The path of each sample, ``(B,)``, where they do not all enter at the first."""
        self.said: ir.Value | None = None
        """What the router says of each sample before the bias, ``(B, paths)``, where the policy asks it."""

    def through(self, body: Body, given: Inside, bias: ir.Value | None, entries: ir.Value | None) -> list[ir.Value]:
        """From the parts of a batch to the answers of all.

        Args:
            body: the main graph.
            given: the whole batch; its ``h`` are the parts of it.
            bias: the graph's input for the router's bias, where the policy asks the router.
            entries: the graph's input that says where each sample enters, where that is fixed.
        """
        several = self.graphs.chain.num_paths > 1
        if several and self.graphs.prepare is not None:  # every path reads the batch anew
            given = replace(given, h=self._prepared(body, given))
        begun: list[ir.Value] = []
        self.entry = entries
        if bias is not None:
            begun = self._route(body, given, bias)
        state = given.state
        if self.graphs.begin is not None:
            state = body.call(self.graphs.begin, given.h)
        whole = replace(given, state=state)
        inside: Inside | None = None
        *asked, final = self.graphs.places
        on = -1  # the path before
        for place in asked:
            standing, read = self._source(body, place, on, inside, whole, begun)
            inside, on = self._leave(body, place, standing, read), place.path
        standing, read = self._source(body, final, on, inside, whole, begun)
        hear = final.hear
        if hear is not None and inside is not None and self.thresholds is not None:
            encoded = self._heard(body, hear, standing.h, _somebody(body, standing), final.k)
            read, hear = (lambda branch: encoded), None

        def last(branch: Body) -> list[ir.Value]:
            h = branch.call_all(final.segment, read(branch))
            if hear is not None:
                h = _encoded(branch, hear, h)
            output, score = branch.call(final.exit, [*h, *standing.previous])
            return _written(branch, standing, [output, _exit(branch, standing, final.k), score])

        return body.choose(_somebody(body, standing), last, lambda branch: standing.answers)

    def _route(self, body: Body, given: Inside, bias: ir.Value) -> list[ir.Value]:
        """Ask the router where each sample enters; the state that it read of the cheapest path."""
        route = self.graphs.route
        if route is None:  # a model without a router: the bias alone decides
            number = self.graphs.chain.num_paths
            shape = body.op("Concat", body.op("Shape", given.rows), body.number([number]), axis=0)
            said: list[ir.Value] = [body.op("ConstantOfShape", shape)]
        else:
            said = body.choose(
                _somebody(body, given),
                lambda branch: branch.call(route, given.h),
                lambda branch: [branch.nothing(example) for example in self.graphs.routed],
            )
        self.said = said[0]
        together = body.op("Add", said[0], bias)
        self.entry = body.op("ArgMax", together, axis=1, keepdims=0)
        return said[1:]

    def _source(
        self, body: Body, place: Place, on: int, inside: Inside | None, whole: Inside, begun: list[ir.Value]
    ) -> tuple[Inside, Branch]:
        """Who stands before a segment, and what the segment reads, for use in a branch.

        Args:
            body: the main graph.
            place: where the segment leads.
            on: the path of the place before, −1 at the first.
            inside: who comes from there; None at the first.
            whole: the batch.
            begun: the cheapest path's first state, where the router read it.
        """
        if inside is not None and not place.starts:
            h = inside.h
            return inside, lambda branch: h
        if inside is None and self.entry is None:
            return whole, lambda branch: self._read(branch, whole)
        coming = [] if inside is None else [inside.rows]
        state = [] if inside is None else [[value] for value in inside.state]
        taken = [] if inside is None or not place.over else self._taken(body, place, inside)
        if self.entry is not None:
            from_here = body.op("Greater", self.entry, body.number(on))
            here = body.op("And", from_here, body.op("LessOrEqual", self.entry, body.number(place.path)))
            new = body.op("Reshape", body.op("NonZero", here), body.number([-1]))
            coming.append(new)
            fresh = [[body.op("Gather", value, new, axis=0)] for value in whole.state]
            state = fresh if inside is None else [a + b for a, b in zip(state, fresh, strict=True)]
            taken = [body.op("Concat", value, body.blank(place.taken[0], new), axis=0) for value in taken]
        rows = _joined(body, coming)
        source = begun if begun and place.path == 0 else whole.h

        def read(branch: Body) -> list[ir.Value]:
            return [*(branch.op("Gather", value, rows, axis=0) for value in source), *taken]

        answers = (whole if inside is None else inside).answers
        return Inside([], rows, answers, [], [_joined(body, values) for values in state]), read

    def _taken(self, body: Body, place: Place, inside: Inside) -> list[ir.Value]:
        """What a path takes over for those who come from the one before."""
        return body.choose(
            _somebody(body, inside),
            lambda branch: branch.call_all(place.over, inside.h),
            lambda branch: [branch.nothing(example) for example in place.taken],
        )

    def _read(self, branch: Body, whole: Inside) -> list[ir.Value]:
        """What the first segment reads: samples, prepared where that was not done for all paths at once."""
        several = self.graphs.chain.num_paths > 1
        return whole.h if several or self.graphs.prepare is None else branch.call(self.graphs.prepare, whole.h)

    def _prepared(self, body: Body, given: Inside) -> list[ir.Value]:
        prepare = self.graphs.prepare
        assert prepare is not None
        dims = [[d if isinstance(d, int) else 1 for d in v.shape or ()][1:] for v in prepare.outputs]
        return body.choose(
            _somebody(body, given),
            lambda branch: branch.call(prepare, given.h),
            lambda branch: [branch.nothing(torch.zeros(1, *d)) for d in dims],
        )

    def _leave(self, body: Body, place: Place, inside: Inside, read: Branch) -> Inside:
        """Run a segment and ask its exit, if anybody is inside and it is of use; who stays."""
        somebody = _somebody(body, inside)
        if self.thresholds is None:
            return self._leave_at_once(body, place, inside, read, somebody)
        h = body.choose(
            self._of_use(body, place, somebody, self.thresholds),
            lambda branch: branch.call_all(place.segment, read(branch)),
            lambda branch: [branch.blank(example, inside.rows) for example in place.shapes.h],
        )
        is_asked = self._is_asked(body, place.k, somebody, self.thresholds)
        if place.hear is not None:
            h = self._heard(body, place.hear, h, is_asked, place.k)
        reached = replace(inside, h=h)
        asked = _Asked.of(
            body.choose(
                is_asked,
                lambda branch: self._ask(branch, place, reached).values(),
                lambda branch: self._pass_by(branch, place, reached).values(),
            ),
            len(place.shapes.previous),
        )
        return _staying(body, reached, asked)

    def _leave_at_once(self, body: Body, place: Place, inside: Inside, read: Branch, somebody: ir.Value) -> Inside:
        """The same in one ``If``, where the exit is asked whenever its segment runs."""
        number = len(place.shapes.h)

        def run(branch: Body) -> list[ir.Value]:
            h = branch.call_all(place.segment, read(branch))
            if place.hear is not None:
                h = _encoded(branch, place.hear, h)
            return [*h, *self._ask(branch, place, replace(inside, h=h)).values()]

        def nobody(branch: Body) -> list[ir.Value]:
            h = [branch.blank(example, inside.rows) for example in place.shapes.h]
            return [*h, *self._pass_by(branch, place, inside).values()]

        values = body.choose(somebody, run, nobody)
        asked = _Asked.of(values[number:], len(place.shapes.previous))
        return _staying(body, replace(inside, h=values[:number]), asked)

    def _heard(self, body: Body, hear: ir.Graph, h: list[ir.Value], asked: ir.Value, k: int) -> list[ir.Value]:
        """The state with another modality encoded, if exit ``k`` is asked and no exit before it needed that."""
        assert self.thresholds is not None
        *own, given, there, tokens = h
        for j in self.graphs.chain.side:
            if j < k:
                threshold = body.op("Gather", self.thresholds, body.number(j), axis=0)
                asked = body.op("And", asked, body.op("Greater", threshold, body.number(1, np.float32)))
        found = body.choose(asked, lambda branch: branch.call(hear, [given, there]), lambda branch: [tokens])
        return [*own, given, there, *found]

    def _of_use(self, body: Body, place: Place, somebody: ir.Value, thresholds: ir.Value) -> ir.Value:
        """Whether a segment is computed: not behind the last exit of a path that is on, but where a link reads it."""
        chain = self.graphs.chain
        if chain.linked or place.path == chain.num_paths - 1:
            return somebody
        end = chain.ends[place.path]
        behind = body.op("Slice", thresholds, body.number([place.k]), body.number([end + 1]))
        lowest = body.op("ReduceMin", behind, keepdims=0)
        on = body.op("LessOrEqual", lowest, body.number(1, np.float32))
        must = body.op("LessOrEqual", self.max_exit, body.number(end))
        return body.op("And", somebody, body.op("Or", on, must))

    def _is_asked(self, body: Body, k: int, somebody: ir.Value, thresholds: ir.Value) -> ir.Value:
        """Whether the head of exit ``k`` runs: for somebody who can reach its threshold, or must leave."""
        threshold = body.op("Gather", thresholds, body.number(k), axis=0)
        reachable = body.op("LessOrEqual", threshold, body.number(1, np.float32))
        must = body.op("LessOrEqual", self.max_exit, body.number(k))
        return body.op("And", somebody, body.op("Or", reachable, must))

    def _ask(self, branch: Body, place: Place, inside: Inside) -> _Asked:
        """The head, and what the policy says of its output."""
        given = [*inside.h, *self.numbers, *inside.previous, *inside.state]
        answer, score, leave, output, *state = branch.call(place.exit, given)
        answers = _written(branch, inside, [answer, _exit(branch, inside, place.k), score])
        beyond = branch.op("Less", branch.number(place.k), self.max_exit)
        keep = branch.op("And", branch.op("Not", leave), beyond)
        return _Asked(answers, keep, [output] if self.compares else [], state)

    def _pass_by(self, branch: Body, place: Place, inside: Inside) -> _Asked:
        """Nobody is asked: everybody stays."""
        shapes = place.shapes
        keep = branch.op("ConstantOfShape", branch.op("Shape", inside.rows), value=_tensor([True], np.bool_))
        previous, state = ([branch.nothing(example) for example in part] for part in (shapes.previous, shapes.state))
        return _Asked(inside.answers, keep, previous, state)


def _encoded(branch: Body, hear: ir.Graph, h: list[ir.Value]) -> list[ir.Value]:
    *before, given, there, _ = h
    return [*before, given, there, *branch.call(hear, [given, there])]


def _joined(body: Body, values: list[ir.Value]) -> ir.Value:
    return values[0] if len(values) == 1 else body.op("Concat", *values, axis=0)


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
