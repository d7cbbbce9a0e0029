"""What a path, a link and a router are, and how each comes from its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from offramp.backbones import Backbone
from offramp.errors import UsageError
from offramp.inputs import Input
from offramp.registry import LINKS, PATHS, ROUTERS, Table
from offramp.types import Part


class Router(Protocol):
    """Says at which path a sample should enter; a module. It is built from the model's input and all paths."""

    after: int
    """How many blocks of the cheapest path it reads; 0 where it reads the sample itself."""

    def __call__(self, x: Tensor, h: Any) -> Tensor:
        """A number for each path, the larger the better, float ``(B, paths)``.

        Args:
            x: prepared samples, ``(B, C, H, W)``.
            h: the cheapest path's state behind ``after`` blocks; None where that is 0.
        """


class Link(Protocol):
    """What a path takes over from the one before; a module. It is built from the last tap of one and a tap of the next.

    It gives zeros before it is trained, so that the paths are as they were.
    """

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens after the last block of the path before to what is added to the next path's first tokens.

        ``(B, prefix + h·w, dim)`` to the same for the other grid.
        """


def build_path(part: Part, backbone: Backbone) -> Backbone:
    """Another way through a backbone. Raises ``UsageError`` for an unknown name, options, or a path it cannot have."""
    found: Backbone = _built("path", PATHS, part, backbone)
    return found


def build_link(part: Part, before: Backbone, after: Backbone) -> Link | None:
    """What ``after`` takes over from ``before``, if anything. Raises ``UsageError`` for an unknown name or option."""
    link: Link | None = _built("link", LINKS, part, before.taps[-1], after.taps[0])
    return link


def build_router(part: Part, reads: Input, paths: Sequence[Backbone]) -> Router:
    """What says at which of several paths to enter. Raises ``UsageError`` for an unknown name or option."""
    router: Router = _built("router", ROUTERS, part, reads, paths)
    return router


def _built(kind: str, table: Table, part: Part, *given: Any) -> Any:
    make = table.resolve(part.name)
    try:
        return make(*given, **part.options)
    except TypeError as error:
        raise UsageError(f"{kind} {part.name!r} could not be built: {error}") from error
