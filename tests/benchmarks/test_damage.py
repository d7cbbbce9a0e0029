"""The benchmark of damage, on a few files of each kind: it is where all that is read is tried together."""

import argparse
import warnings

import pytest
from benchmarks.damage import kinds, try_all

pytestmark = pytest.mark.slowest


def test_damaged_files_end_in_one_sentence_or_are_unharmed(tmp_path):
    found = kinds(tmp_path)
    readings = {name: kind.read(kind.path) for name, kind in found.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows, failures = try_all(found, readings, tmp_path, argparse.Namespace(count=300, seed=1))
    assert not failures
    assert {row["kind"].split(",")[0] for row in rows} == {
        "artifact",
        "exported file",
        "policy",
        "table",
        "image",
        "data",
        "recipe",
    }
    assert sum(row["files"] for row in rows) >= 300
    assert sum(row.get("refused", 0) for row in rows) > 150
    assert all(row["written"] == 0 for row in rows)
