"""One head for the same exit on several paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.func import functional_call

from offramp.types import Tap


class SharedHead(nn.Module):
    """A head that reads several grids with one set of weights; the number of tokens says which.

    Args:
        heads: built for each tap, of one shape of weights; the last one's weights are kept.
        taps: where they read, each with another number of tokens.
    """

    def __init__(self, heads: Sequence[nn.Module], taps: Sequence[Tap]) -> None:
        super().__init__()
        self.own = heads[-1]
        self.elsewhere = nn.ModuleDict(
            {str(tap.tokens): _without_weights(head) for head, tap in zip(heads[:-1], taps[:-1], strict=True)}
        )

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` of any of the grids to the head's answer."""
        key = str(tokens.shape[1])
        given = (tokens,) if side is None else (tokens, side)
        if key not in self.elsewhere:
            own: Tensor = self.own(*given)
            return own
        weights = {**dict(self.own.named_parameters()), **dict(self.own.named_buffers())}
        answer: Tensor = functional_call(self.elsewhere[key], weights, given)
        return answer


def heads_for(build: Callable[[Tap], nn.Module], taps: Sequence[Tap], share: bool) -> tuple[list[nn.Module], list[int]]:
    """The heads of one exit on several paths, and for each path the index of its own.

    Where heads are shared, paths on which the head has weights of one shape have one: a head that is bound to its grid
    (``mixer``, ``resmlp``, ``sl-vit``, ``cnn-*``) gets one for each grid.

    Args:
        build: from a tap to the head there.
        taps: where the exit stands, path by path.
        share: whether to share.
    """
    built = [build(tap) for tap in taps]
    if not share:
        return built, list(range(len(built)))
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for i, head in enumerate(built):
        groups.setdefault(tuple((name, tuple(value.shape)) for name, value in head.state_dict().items()), []).append(i)
    heads: list[nn.Module] = []
    place = [0] * len(taps)
    for group in groups.values():
        several = len({taps[i].tokens for i in group}) > 1
        heads.append(_shared([built[i] for i in group], [taps[i] for i in group]) if several else built[group[-1]])
        for i in group:
            place[i] = len(heads) - 1
    return heads, place


def _shared(heads: list[nn.Module], taps: list[Tap]) -> SharedHead:
    of_size = {tap.tokens: (head, tap) for head, tap in zip(heads, taps, strict=True)}  # the dearest path's is last
    kept, places = zip(*of_size.values(), strict=True)
    return SharedHead(kept, places)


def _without_weights(head: nn.Module) -> nn.Module:
    for module in head.modules():
        for held in (module._parameters, module._buffers):
            for name in held:
                held[name] = None
        # a BatchNorm would ask a state dict for a count that is not there, and call it unexpected then
        module._load_from_state_dict = _nothing  # type: ignore[method-assign, assignment]
    return head


def _nothing(*_: object) -> None:
    """What a module without weights loads."""
