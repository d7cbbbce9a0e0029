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

State = tuple[Tensor, ...]
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
            info: Any = self.model.feature_info
            self.names = tuple(feature["module"] for feature in info)
            size = input_size(model)
            graph, owners = _trace(model)
            cuts = _cut_points(graph, owners, self.names)
            values = _observe(model, graph, size)
            *steps, final = _split(graph, cuts, values)
            self.steps = tuple(partial(_call, step, model) for step in steps)
            self._final = partial(_call, final, model)
            last = [values[0][node] for node in cuts]
            self.taps, self._layouts = _taps(model, last[:-1])
        except UsageError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UsageError(f"a {kind} cannot be cut: {reason}") from error
        finally:
            for m in training:
                m.training = True

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether timm says where its features are."""
        return (
            isinstance(model, nn.Module)
            and bool(getattr(model, "feature_info", None))
            and hasattr(model, "forward_head")
        )

    def stem(self, x: Tensor) -> State:
        """The images are the first state; all computation belongs to the steps."""
        return (x,)

    def final(self, h: State) -> Tensor:
        """What stands behind the last feature."""
        return self._final(h)

    def tokens(self, h: State, tap: Tap) -> Tensor:
        """The feature as tokens, ``(B, prefix + h·w, dim)``."""
        layout = self._layouts[tap.after - 1]
        return h[0] if layout == "tokens" else map_tokens(h[0], layout == "channels last")


def _call(function: Callable[..., Any], model: nn.Module, h: State) -> Any:
    return function(model, *h)


def _trace(model: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    tracer = NodePathTracer(leaf_modules=get_notrace_modules(), autowrap_functions=get_notrace_functions())
    graph = tracer.trace(model)
    return graph, dict(tracer.node_to_qualname)


def _cut_points(graph: fx.Graph, owners: dict[fx.Node, str], names: tuple[str, ...]) -> list[fx.Node]:
    """The last node of each named module, in the order of computation."""
    nodes = list(graph.nodes)
    cuts = []
    for name in names:
        inside = [n for n in nodes if owners.get(n, "") == name or owners.get(n, "").startswith(f"{name}.")]
        if not inside:
            raise UsageError(f"the module {name!r} of timm's feature_info does not appear in the traced model")
        cuts.append(inside[-1])
    if [nodes.index(c) for c in cuts] != sorted({nodes.index(c) for c in cuts}):
        raise UsageError(f"the modules of timm's feature_info do not follow each other: {', '.join(names)}")
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


def _split(graph: fx.Graph, cuts: list[fx.Node], values: tuple[dict[fx.Node, Any], ...]) -> list[Callable[..., Any]]:
    """One function ``(model, *state) -> state`` to each cut, and one from the last cut to the output."""
    nodes = list(graph.nodes)
    position = {n: i for i, n in enumerate(nodes)}
    ends = [position[c] for c in cuts]
    output = nodes[-1]
    crosses = {n for n in nodes if _has_batch(n, values)}

    # from the end to the beginning: what a segment needs from before it must be part of the state before it
    functions: list[Callable[..., Any]] = []
    wanted: list[fx.Node] | None = None
    for k in range(len(cuts), -1, -1):
        start = ends[k - 1] + 1 if k else 0
        stop = ends[k] + 1 if k < len(cuts) else len(nodes)
        inputs = [cuts[k - 1]] if k else [nodes[0]]
        targets = [output.args[0]] if wanted is None else wanted
        needed = _needed(targets, start, stop, position, crosses, inputs[0], values)
        inputs += [n for n in needed if n not in inputs]
        functions.append(_function(nodes, targets, inputs, crosses, values, final=wanted is None))
        wanted = inputs
    return functions[::-1]


def _has_batch(node: fx.Node, values: tuple[dict[fx.Node, Any], ...]) -> bool:
    """Whether a node gives a tensor whose first dimension is the sample."""
    return all(
        isinstance(seen.get(node), Tensor) and seen[node].ndim > 0 and len(seen[node]) == n
        for seen, n in zip(values, _BATCHES, strict=True)
    )


def _is_size(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_size(v) for v in value)
    return isinstance(value, (int, float, bool, torch.device, torch.dtype, str, type(None)))


def _needed(
    targets: list[Any],
    start: int,
    stop: int,
    position: dict[fx.Node, int],
    crosses: set[fx.Node],
    first: fx.Node,
    values: tuple[dict[fx.Node, Any], ...],
) -> list[fx.Node]:
    """The tensors with a sample dimension, made before ``start``, that the targets are computed from."""
    found: dict[fx.Node, None] = {}
    done: set[fx.Node] = set()
    stack = [n for t in targets for n in _nodes_in(t)]
    while stack:
        node = stack.pop()
        if node in done:
            continue
        done.add(node)
        if position[node] < start and node in crosses:
            found[node] = None
        elif not (position[node] < start and _is_size(values[0][node])):
            stack += node.all_input_nodes
    found.pop(first, None)
    return sorted(found, key=position.__getitem__)


def _nodes_in(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    return found


def _function(
    nodes: list[fx.Node],
    targets: list[Any],
    inputs: list[fx.Node],
    crosses: set[fx.Node],
    values: tuple[dict[fx.Node, Any], ...],
    final: bool,
) -> Callable[..., Any]:
    """Compile the part of the graph between some nodes as a function of the model and their values."""
    part = fx.Graph()
    made: dict[fx.Node, Any] = {}
    for i, node in enumerate(inputs):
        made[node] = part.placeholder(f"h{i}")
    lead = made[inputs[0]]
    begin = max(nodes.index(n) for n in inputs)

    def make(node: fx.Node) -> Any:
        if node not in made:
            if nodes.index(node) < begin and _is_size(values[0][node]):
                template = _template(values[0][node], values[1][node])
                made[node] = part.call_function(_fill, (template, lead))
            else:
                for other in node.all_input_nodes:
                    make(other)
                made[node] = part.node_copy(node, lambda n: made[n])
        return made[node]

    # in the order of the whole graph, so that what works in place does so after those who read before it
    order: dict[fx.Node, None] = {}
    stack = [n for t in targets for n in _nodes_in(t)]
    while stack:
        node = stack.pop()
        if node in order or node in inputs:
            continue
        order[node] = None
        if not (nodes.index(node) < begin and _is_size(values[0][node])):
            stack += node.all_input_nodes
    for node in sorted(order, key=nodes.index):
        make(node)
    results = [fx.node.map_arg(t, make) for t in targets]
    part.output(results[0] if final else tuple(results))
    code = part.python_code("self")
    scope = dict(code.globals)
    exec(code.src, scope)
    return scope["forward"]


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
    raise UsageError(f"a size in it is {a} for {_BATCHES[0]} images and {b} for {_BATCHES[1]}")


def _fill(template: Any, lead: Tensor) -> Any:
    """The size that a template has for the batch of ``lead``."""
    if template and template[0] == "is":
        return template[1]
    if template and template[0] == "batch":
        return template[1] * lead.shape[0]
    if template and template[0] == "device":
        return lead.device
    return tuple(_fill(t, lead) for t in template)


def _taps(model: Any, features: list[Any]) -> tuple[list[Tap], list[str]]:
    taps, layouts = [], []
    for after, (h, info) in enumerate(zip(features, model.feature_info, strict=False), start=1):
        dim = info["num_chs"]
        if not isinstance(h, Tensor):
            raise UsageError(f"the feature {info['module']!r} is a {type(h).__name__}, not a tensor")
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
            raise UsageError(f"the feature {info['module']!r} has the shape {tuple(h.shape)}")
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
