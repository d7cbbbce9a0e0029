"""Several ways through one set of weights: paths, the links between them, and routers, which say where to enter."""

from offramp.paths._seams import Link, Router, build_link, build_path, build_router
from offramp.paths._shared import SharedHead, heads_for

__all__ = ["Link", "Router", "SharedHead", "build_link", "build_path", "build_router", "heads_for"]
