"""The Open Inference Protocol: servers that speak it, and those who ask them."""

import gc

RESERVE = 0.003
"""Seconds from sending an answer to its being read, on the loopback; what comes before is learned."""


def freeze() -> None:
    """Once everything stands: what there is now stays, and Python need not look through it for what can go.

    With torch that is hundreds of thousands of objects; nobody is answered meanwhile.
    """
    gc.collect()
    gc.freeze()
