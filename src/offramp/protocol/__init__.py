"""The Open Inference Protocol: servers that speak it, and those who ask them."""

RESERVE = 0.003
"""Seconds from sending an answer to its being read, on the loopback; what comes before is learned."""
