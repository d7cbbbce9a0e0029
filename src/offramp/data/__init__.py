"""Data: where samples come from, how they are split, how they become tensors."""

from offramp.data.crops import in_crops, splits_in_crops
from offramp.data.own import Data, Stream, as_samples, as_samples_or_stream, as_splits
from offramp.data.prepared import Prepared, loader
from offramp.data.samples import Samples, Splits
from offramp.data.sources import open_splits

__all__ = [
    "Data",
    "Prepared",
    "Samples",
    "Splits",
    "Stream",
    "as_samples",
    "as_samples_or_stream",
    "as_splits",
    "in_crops",
    "loader",
    "open_splits",
    "splits_in_crops",
]
