"""From a model and its policy to the graphs that are joined."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
import torch

from offramp._batches import of_parts, parts
from offramp.errors import UsageError
from offramp.export.graph import traced
from offramp.export.join import Graphs, Place, Shapes
from offramp.export.parts import Ask, Begin, Final, Hear, Link, Route, Segment, Tensors
from offramp.export.quantise import quantised
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed, inner_of
from offramp.policies.forced import Forced

_EXAMPLES = 3


def check_policy_fits(model: EarlyExitModel, policy: Policy) -> None:
    """Raise ``UsageError`` for a policy for more exits or paths than the model has."""
    if policy.heads and max(policy.heads) >= len(model.exits):
        raise UsageError(f"the policy needs exits {list(policy.heads)}, the model has {len(model.exits)} early exits")
    if isinstance(policy, Routed) and len(policy.bias) != model.chain.num_paths:
        raise UsageError(f"the policy has a bias for {len(policy.bias)} paths, the model has {model.chain.num_paths}")


class Pieces:
    """Traces a model exit by exit, along the chain.

    Args:
        model: the model, in evaluation mode.
        policy: who enters and leaves where.
        numbers: what of it is an input of the graph, the bias left out.
        gated: whether all exits are in the graph, and thresholds switch them. Pieces reach from exit to exit of the
            model in any case, so that an int8 file answers the same whichever exits it holds.
        compares: whether scores compare with the exit before.
        int8: batches to quantise with.
    """

    def __init__(
        self,
        model: EarlyExitModel,
        policy: Policy,
        numbers: Tensors,
        gated: bool,
        compares: bool,
        int8: list[Tensors] | None,
    ) -> None:
        self.model, self.numbers, self.gated, self.compares = model, numbers, gated, compares
        self.policy, self.routed = inner_of(policy), isinstance(policy, Routed)
        entries = self.policy.entries if isinstance(self.policy, Forced) else None
        self.enters = self.routed or entries is not None
        self.asked = tuple(range(len(model.exits))) if gated else policy.heads
        device = next(model.parameters()).device
        self.batch: Tensors = tuple(part.to(device) for part in parts(model.input.example(_EXAMPLES)))
        self.examples = None if int8 is None else [tuple(part.to(device) for part in x) for x in int8]
        self._h, self._seen = self.batch, self.examples  # behind what was traced last
        first = model.enter(0, of_parts(self.batch))
        self.packed = isinstance(first if model.side is None else first[0], tuple)

    def graphs(self) -> Graphs:
        """All of them. Raises ``UsageError`` where a link would read a path of which no exit is asked."""
        model, chain = self.model, self.model.chain
        route = begin = None
        routed: Tensors = ()
        if self.routed and model.router is not None:
            router = Route(model)
            route, routed = traced(router, (self.batch,)), router(self.batch)
        state: Tensors = (torch.zeros(_EXAMPLES, dtype=torch.long),) if isinstance(self.policy, Forced) else ()
        begins = not isinstance(self.policy, Forced)
        if self.enters and begins:
            first = Begin(self.policy)
            state, begins = first(self.batch), False
            begin = traced(first, (self.batch,)) if state else None
        places: list[Place] = []
        previous: Tensors = ()
        before, on = -1, -1
        for k in (*self.asked, len(model.exits)):
            path = chain.paths[k]
            starts, over = path != on, list[ir.Graph]()
            taken: Tensors = ()
            if starts:
                if chain.linked and path > max(on, 0) + (on >= 0):
                    raise UsageError(f"paths are linked, and the policy asks no exit on path {path - 1}")
                if chain.linked and on >= 0:
                    link = Link(model, path, self.packed)
                    over = [*self._to(range(before + 1, chain.ends[on] + 1)), traced(link, (self._h,))]
                    taken = link(self._h)
                begun = path == 0 and len(routed) > 1
                self._h, previous = routed[1:] if begun else (*self.batch, *taken), ()
                if self.examples is not None and self._seen is not None:
                    links = [link(x) for x in self._seen] if taken else [()] * len(self.examples)
                    self._seen = [(*x, *more) for x, more in zip(self.examples, links, strict=True)]
                    if begun:
                        self._seen = [Route(model)(x)[1:] for x in self.examples]
                segment = self._to(range(chain.starts[path], k + 1), None if begun else path)
            else:
                segment = self._to(range(before + 1, k + 1))
            hear = self._hear() if k in chain.side and (self.gated or k == chain.heard(self.asked)) else None
            h, before, on = self._h, k, path
            if k == len(model.exits):
                final = traced(Final(model, self.policy, self.packed), (h, previous))
                places.append(Place(k, path, segment, final, Shapes(h, (), ()), starts, over, taken, hear))
                break
            ask = Ask(model, self.policy, k, begins and not places, self.packed)
            head = traced(ask, (h, self.numbers, previous, state), fixed=(1,))
            _, _, _, output, *after = ask(h, self.numbers, previous, state)
            previous, state = ((output,) if self.compares else ()), tuple(after)
            places.append(Place(k, path, segment, head, Shapes(h, previous, state), starts, over, taken, hear))
        return Graphs(places, chain, self.gated, route=route, routed=routed, begin=begin)

    def _to(self, segments: Iterable[int], start: int | None = None) -> list[ir.Graph]:
        """Go on by these segments, each a graph, quantised where that is asked; the first begins a path if so said."""
        graphs = []
        for k in segments:
            segment = Segment(self.model, k, self.packed, start)
            graph = traced(segment, (self._h,))
            if self._seen is not None:
                graph = quantised(graph, self._seen, shared=self.model.chain.num_paths > 1)
                self._seen = [segment(x) for x in self._seen]
            self._h, start = segment(self._h), None
            graphs.append(graph)
        return graphs

    def _hear(self) -> ir.Graph:
        """What encodes another modality, quantised likewise; the state behind it has what it gives."""
        hear = Hear(self.model)
        graph = traced(hear, (self._h[-3:-1],))
        if self._seen is not None:
            graph = quantised(graph, [x[-3:-1] for x in self._seen])
            self._seen = [(*x[:-1], *hear(x[-3:-1])) for x in self._seen]
        self._h = (*self._h[:-1], *hear(self._h[-3:-1]))
        return graph
