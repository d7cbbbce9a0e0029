"""Heads: the modules at the taps. Each is built as ``Head(tap, num_outputs, **options)`` and maps tokens to an output.

A head reads ``tokens`` of shape ``(B, prefix + h·w, dim)`` and may read ``side``, tokens of another modality of shape
``(B, k, dim)``; it knows neither the backbone nor its depth. A new head is one file here and one line in
``offramp.registry.HEADS``.
"""

from offramp.heads._build import build_head

__all__ = ["build_head"]
