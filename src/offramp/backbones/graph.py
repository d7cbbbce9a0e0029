"""Any other timm model, cut by its graph at the modules that timm's ``feature_info`` names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from offramp.backbones._maps import input_size, map_tokens
from offramp.errors import UsageError
from offramp.types import Tap

Crossing = tuple[Tensor, ...]
_BATCHES = (2, 3)


class GraphBackbone(nn.Module):
    """A timm model cut by ``torch.fx``; one step leads to each feature that timm names.

    The model is traced with timm's own settings. The state after a cut is a tuple of all tensors that later parts need,
    the feature itself first; each has the sample as its first dimension, so a state can be compacted. What does not
    depend on the images (parameters, position tables, masks) is no part of the state: each step computes it anew. Sizes
    that depend on the batch are read off the state, sizes that do not are constants. Which is which is observed, by
    running the graph on two batch sizes.

    Tracing fixes evaluation mode for what is not a module of its own (functional dropout, stochastic depth): when the
    backbone is trained, these are off.

    Args:
        model: the timm model; it is held, not copied.

    Raises:
        UsageError: the model cannot be traced or cut; the sentence says why.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        kind = type(model).__name__
        training = [m for m in model.modules() if m.training]
        model.eval()
        try:
            size = input_size(model)
            graph, owners = _trace(model)
            features = _features(self.model.feature_info, owners)
            self.names = tuple(name for name, _ in features)
            cuts = _cut_points(graph, owners, self.names)
            values = _observe(model, graph, size)
            *steps, final = _Splitter(graph, values).split(cuts)
            self.steps = tuple(partial(_call, step, model) for step in steps)
            self._final = partial(_call, final, model)
            found = [(values[0][node], info) for node, (_, info) in zip(cuts, features, strict=True)]
            self.taps, self._layouts = _taps(model, found)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UsageError(f"a {kind} cannot be cut: {reason}") from error
        finally:
            for m in training:
                m.training = True

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether timm says where its features are."""
        return isinstance(model, nn.Module) and bool(getattr(model, "feature_info", None))

    def stem(self, x: Tensor) -> Crossing:
        """The images are the first state; all computation belongs to the steps."""
        return (x,)

    def final(self, h: Crossing) -> Tensor:
        """What stands behind the last feature."""
        return self._final(h)

    def tokens(self, h: Crossing, tap: Tap) -> Tensor:
        """The feature as tokens, ``(B, prefix + h·w, dim)``."""
        layout = self._layouts[tap.after - 1]
        return h[0] if layout == "tokens" else map_tokens(h[0], layout == "channels last")


def _call(function: Callable[..., Any], model: nn.Module, h: Crossing) -> Any:
    return function(model, *h)


def _trace(model: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    tracer = NodePathTracer(leaf_modules=get_notrace_modules(), autowrap_functions=get_notrace_functions())
    graph = tracer.trace(model)
    return graph, dict(tracer.node_to_qualname)


def _features(infos: Any, owners: dict[fx.Node, str]) -> list[tuple[str, dict[str, Any]]]:
    """The modules that timm names and that the graph knows, with what timm says of them.

    Where timm numbers stages under another name than the module has, the stage of that number is meant; a feature
    without a module of its own is left out.
    """
    paths = {".".join(owner.split(".")[:k]) for owner in owners.values() for k in range(1, owner.count(".") + 2)}
    found: dict[str, dict[str, Any]] = {}
    for info in infos:
        number = info["module"].rpartition(".")[2]
        known = [name for name in (info["module"], f"stages.{number}", f"blocks.{number}") if name in paths]
        if known:
            found.setdefault(known[0], info)
    features = list(found.items())
    if len(features) < 2:
        named = ", ".join(info["module"] for info in infos)
        raise ValueError(f"of the modules that timm's feature_info names ({named}), fewer than two are in its graph")
    return features


def _cut_points(graph: fx.Graph, owners: dict[fx.Node, str], names: tuple[str, ...]) -> list[fx.Node]:
    """The last node of each named module, in the order of computation."""
    nodes = list(graph.nodes)
    cuts = [[n for n in nodes if f"{owners.get(n, '')}.".startswith(f"{name}.")][-1] for name in names]
    places = [nodes.index(c) for c in cuts]
    if places != sorted(set(places)):
        raise ValueError(f"the modules of timm's feature_info do not follow each other: {', '.join(names)}")
    return cuts


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what each node gave: sizes as they are, tensors by their shape."""

    def __init__(self, module: Any, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.seen: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.seen[n] = torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value
        return value


def _observe(model: nn.Module, graph: fx.Graph, size: tuple[int, int, int]) -> tuple[dict[fx.Node, Any], ...]:
    """The value of each node for two batch sizes."""
    device = next(model.parameters()).device
    seen = []
    with torch.no_grad():
        for n in _BATCHES:
            recorder = _Recorder(model, graph)
            recorder.run(torch.zeros(n, *size, device=device))
            seen.append(recorder.seen)
    return tuple(seen)


class _Splitter:
    """Splits a traced graph at some nodes into functions ``(model, *state) -> state``.

    Args:
        graph: the traced graph.
        values: what each node gave for the two batch sizes.
    """

    def __init__(self, graph: fx.Graph, values: tuple[dict[fx.Node, Any], ...]) -> None:
        self.nodes = list(graph.nodes)
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self.values = values

    def split(self, cuts: list[fx.Node]) -> list[Callable[..., Any]]:
        """One function to each cut, and one from the last cut to the output.

        From the end to the beginning: what a part needs from before it is the state that the part before must give.
        """
        functions: list[Callable[..., Any]] = []
        targets: list[Any] = [self.nodes[-1].args[0]]
        for cut in [*cuts[::-1], self.nodes[0]]:
            state, function = self.part(targets, cut, final=not functions)
            functions.append(function)
            targets = list(state)
        return functions[::-1]

    def part(self, targets: list[Any], cut: fx.Node, final: bool) -> tuple[list[fx.Node], Callable[..., Any]]:
        """The part of the graph from a cut to its targets, and the state that it starts from, the cut first."""
        state, inside = self._needed(targets, cut)
        part = fx.Graph()
        made: dict[fx.Node, Any] = {node: part.placeholder(f"h{i}") for i, node in enumerate(state)}
        for node in inside:
            made[node] = self._copied(node, cut, part, made)
        results = [fx.node.map_arg(target, made.__getitem__) for target in targets]
        part.output(results[0] if final else tuple(results))
        return state, _compile(part)

    def _needed(self, targets: list[Any], cut: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
        """What the targets need: the tensors that come over the cut, and what the part computes itself.

        Walked back from the targets. A tensor of samples that was made before the cut comes over it; whatever else
        stands there (parameters, tables, sizes) is computed anew, and of a size nothing before it is needed. Both lists
        are in the order of the whole graph, so that what works in place does so after those who read before it.
        """
        state: set[fx.Node] = {cut}
        inside: set[fx.Node] = set()
        waiting = [node for target in targets for node in _nodes_in(target)]
        while waiting:
            node = waiting.pop()
            if node in state or node in inside:
                continue
            if self._is_early(node, cut) and self.has_batch(node):
                state.add(node)
                continue
            inside.add(node)
            if not self._is_early_size(node, cut):
                waiting += node.all_input_nodes
        others = sorted(state - {cut}, key=self.position.__getitem__)
        return [cut, *others], sorted(inside, key=self.position.__getitem__)

    def _copied(self, node: fx.Node, cut: fx.Node, part: fx.Graph, made: dict[fx.Node, Any]) -> fx.Node:
        """A node in a part; a size from before the cut is read off the state."""
        if not self._is_early_size(node, cut):
            return part.node_copy(node, made.__getitem__)
        template = _template(self.values[0][node], self.values[1][node])
        return part.call_function(_fill, (template, made[cut]))

    def _is_early(self, node: fx.Node, cut: fx.Node) -> bool:
        return self.position[node] <= self.position[cut]

    def _is_early_size(self, node: fx.Node, cut: fx.Node) -> bool:
        return self._is_early(node, cut) and _is_size(self.values[0][node])

    def has_batch(self, node: fx.Node) -> bool:
        """Whether a node gives a tensor whose first dimension is the sample."""
        return all(
            isinstance(seen.get(node), Tensor) and seen[node].ndim > 0 and len(seen[node]) == n
            for seen, n in zip(self.values, _BATCHES, strict=True)
        )


def _compile(graph: fx.Graph) -> Callable[..., Any]:
    """The function of a graph; its first argument is the model whose modules and parameters it uses."""
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(code.src, scope)
    function: Callable[..., Any] = scope["forward"]
    return function


def _nodes_in(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    return found


def _is_size(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_size(v) for v in value)
    return isinstance(value, (int, float, bool, torch.device, torch.dtype, str, type(None)))


def _template(a: Any, b: Any) -> Any:
    """A size for two batch sizes as ``("batch", factor)`` where it grows with the batch, and as it is where not."""
    if isinstance(a, (tuple, list)):
        return tuple(_template(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.device):
        return ("device",)
    if a == b:
        return ("is", a)
    if a * _BATCHES[1] == b * _BATCHES[0] and a % _BATCHES[0] == 0:
        return ("batch", a // _BATCHES[0])
    raise ValueError(f"a size in it is {a} for {_BATCHES[0]} images and {b} for {_BATCHES[1]}")


def _fill(template: Any, lead: Tensor) -> Any:
    """The size that a template has for the batch of ``lead``."""
    if template and template[0] == "is":
        return template[1]
    if template and template[0] == "batch":
        return template[1] * lead.shape[0]
    if template and template[0] == "device":
        return lead.device
    return tuple(_fill(t, lead) for t in template)


def _taps(model: Any, features: list[tuple[Any, dict[str, Any]]]) -> tuple[list[Tap], list[str]]:
    taps, layouts = [], []
    for after, (h, info) in enumerate(features, start=1):
        dim = info["num_chs"]
        if not isinstance(h, Tensor):
            raise ValueError(f"the feature {info['module']!r} is a {type(h).__name__}, not a tensor")
        if h.ndim == 4:
            last = h.shape[1] != dim or getattr(model, "output_fmt", None) == "NHWC"
            layouts.append("channels last" if last else "channels first")
            rows, columns = h.shape[1:3] if last else h.shape[2:]
            taps.append(Tap(after, h.shape[3] if last else h.shape[1], (rows, columns)))
        elif h.ndim == 3:
            layouts.append("tokens")
            grid = _grid(h.shape[1], model, info)
            prefix = h.shape[1] - grid[0] * grid[1]
            pooled = getattr(model, "global_pool", "") == "token" and prefix > 0
            taps.append(Tap(after, h.shape[2], grid, prefix, int(pooled)))
        else:
            raise ValueError(f"the feature {info['module']!r} has the shape {tuple(h.shape)}")
    return taps, layouts


def _grid(tokens: int, model: Any, info: dict[str, Any]) -> tuple[int, int]:
    """Rows and columns of the patch tokens: from timm's reduction, else the largest square that fits."""
    _, height, width = input_size(model)
    if reduction := info.get("reduction"):
        rows, columns = -(-height // reduction), -(-width // reduction)
        if 0 <= tokens - rows * columns <= 16:
            return rows, columns
    side = int(tokens**0.5)
    return side, side
