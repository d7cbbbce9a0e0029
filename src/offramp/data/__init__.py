"""Data: where samples come from, how they are split, how they become tensors."""

from offramp.data.images import ImageDataset, loader
from offramp.data.samples import Samples, Splits
from offramp.data.sources import open_splits

__all__ = ["ImageDataset", "Samples", "Splits", "loader", "open_splits"]
