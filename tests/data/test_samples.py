"""Splits: fixed, recorded, and apart."""

import numpy as np
import pytest
from helpers import squares

from offramp import DataError
from offramp.data import open_splits
from offramp.data.samples import complete


def test_digits_are_cut_by_seed_in_proportion():
    a, b, c = open_splits("digits"), open_splits("digits"), open_splits("digits", seed=1)
    assert a.record == b.record
    assert a.record["fingerprints"] != c.record["fingerprints"]
    assert a.record["sizes"] == {"train": 1077, "validation": 360, "test": 360}
    assert a.record["cut"] == ["test", "validation"]
    assert a.classes == tuple("0123456789")
    assert np.bincount(a.test.targets).min() >= 34
    assert a.train.read(0).size == (8, 8)


def test_no_sample_is_in_two_splits():
    samples = squares(100)
    marked = type(samples)(samples.read, np.arange(100).astype(np.float32))
    splits = complete("x", {"all": marked}, None, 20, 0)
    seen = np.concatenate([splits.train.targets, splits.validation.targets, splits.test.targets])
    assert sorted(seen) == list(range(100))
    assert len(splits.validation) == len(splits.test) == 20


def test_a_given_split_is_left_as_it_is():
    parts = {"train": squares(80), "test": squares(40, seed=1)}
    splits = complete("x", parts, ["a", "b", "c", "d"], None, 0)
    assert splits.record["cut"] == ["validation"]
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (72, 8, 40)


def test_too_few_samples():
    with pytest.raises(DataError, match="no validation split of 50 can be cut from 8 samples"):
        complete("x", {"train": squares(8), "test": squares(8)}, None, 50, 0)


def test_nothing_there():
    with pytest.raises(DataError, match="there is no data at 'nowhere'"):
        open_splits("nowhere")
