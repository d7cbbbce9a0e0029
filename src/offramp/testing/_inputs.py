"""What every input keeps."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from offramp._batches import cat, count, parts, take
from offramp.errors import DataError, UsageError
from offramp.inputs import Input, input_from_json, input_to_json


def check_input(given: Input, file: str | Path, other: str | Path) -> None:
    """Check that an input reads files, makes tensors of its shapes of them, and becomes JSON and comes back.

    Args:
        given: the input; its class has a name in the table.
        file: a file with a sample.
        other: a file that holds something else.

    Raises:
        AssertionError: the sentence says what is broken.
    """
    assert Path(file).suffix.lower() in given.suffixes, f"{Path(file).suffix} is none of its suffixes"
    assert input_from_json(input_to_json(given)) == given, "it does not come back from JSON"
    assert given == pickle.loads(pickle.dumps(given)), "it cannot be sent to a worker"
    sample = given.read(file)
    with Path(file).open("rb") as opened:
        again = given.read(opened, "a file")
    shapes = list(given.shapes.values())
    for transform in (given.transform(), pickle.loads(pickle.dumps(given.transform()))):
        found = [tuple(part.shape) for part in parts(transform(sample))]
        assert found == shapes, f"a sample becomes {found}, and its shapes are {shapes}"
        same = zip(parts(transform(sample)), parts(transform(again)), strict=True)
        assert all(torch.equal(a, b) for a, b in same), "a path and an open file give two samples"
    for n in (1, 3):
        x = given.example(n)
        given.check(x)
        assert count(x) == n, f"an example of {n} samples has {count(x)}"
        assert all(part.is_floating_point() for part in parts(x)), "prepared samples are floating-point numbers"
    assert count(cat([take(x, torch.tensor([0, 2])), x])) == 5
    assert _refused(lambda: given.check(torch.zeros(2, 1))) is not None, "a batch of another shape passes"
    said = _refused(lambda: given.read(other))
    assert said is not None, f"{other} is no sample, and was read"
    assert "\n" not in said, f"what is no sample is named in one sentence, not by {said!r}"
    _check_graph(given, sample)
    assert given.about(), "it says nothing about itself"


def _refused(call: Callable[[], Any]) -> str | None:
    """The sentence of the ``DataError``, or None where there was none."""
    try:
        call()
    except DataError as error:
        return str(error)
    return None


def _check_graph(given: Input, sample: object) -> None:
    """What an exported file does with a sample is what the transform does; an input may refuse to be part of one."""
    try:
        module, _ = given.graph()
    except UsageError:
        return
    raw = given.raw(sample)
    given.check(raw, raw=True)
    with torch.no_grad():
        found = module(parts(raw))
    for a, b in zip(found, parts(given.transform()(sample)), strict=True):
        assert a.shape[1:] == b.shape, "in the graph a sample has another shape"
        assert float((a[0] - b).abs().median()) < 0.05, "in the graph a sample becomes something else"
