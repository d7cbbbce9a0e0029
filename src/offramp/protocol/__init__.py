"""The Open Inference Protocol: servers that speak it, and those who ask them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RESERVE = 0.003
"""Seconds from sending an answer to its being read, on the loopback; what comes before is learned."""


@contextmanager
def frozen() -> Iterator[None]:
    """What there is at the beginning stays meanwhile, and Python does not look through it for what can go.

    With torch that is hundreds of thousands of objects; nobody is answered while they are looked through.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
