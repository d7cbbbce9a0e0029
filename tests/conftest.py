"""What all tests stand on."""

import functools
import random
import time

import pytest
import torch

from offramp.export import pieces
from offramp.export.parts import Link, Route, Segment
from offramp.registry import TABLES

_STARTED = time.monotonic()


def pytest_addoption(parser):
    parser.addoption(
        "--minutes", type=float, help="skip the tests that have not begun by then; which these are, --turn decides"
    )
    parser.addoption("--turn", default="", help="any word, such as a commit: another one gives another order")


def pytest_collection_modifyitems(config, items):
    """By turns: where time is short, each commit leaves out other tests. A file's tests share what they set up."""
    if config.getoption("minutes") is not None:
        files = sorted({item.path for item in items})
        random.Random(config.getoption("turn")).shuffle(files)
        items.sort(key=lambda item: files.index(item.path))


def pytest_runtest_setup(item):
    minutes = item.config.getoption("minutes")
    if minutes is not None and time.monotonic() - _STARTED > 60 * minutes:
        pytest.skip(f"no time left: the tests had {minutes:g} minutes, and another commit begins with others")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _names_of_one_test():
    """What a test, or a page's code, registers is gone after it: other tests run over every name of a table."""
    before = {table.kind: set(table) for table in TABLES.values()}
    yield
    for table in TABLES.values():
        for name in set(table) - before[table.kind]:
            table.forget(name)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny tensors: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once():
    """Each piece of an export reads the source of some five hundred ONNX operators anew, and lists torch's own."""
    try:
        from torch._export import utils
        from torch.onnx._internal._lazy_import import onnxscript_apis
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        onnxscript_apis.get_torchlib_ops = functools.cache(onnxscript_apis.get_torchlib_ops)
        name = "_collect_all_valid_cia_ops_for_namespace"
        setattr(utils, name, functools.cache(getattr(utils, name)))
        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    except (ImportError, AttributeError):
        return  # private names: without them tests take longer, and nothing else


@pytest.fixture(scope="session", autouse=True)
def _blocks_traced_once():
    """Most of an export is the tracing of blocks, in which policies have no say: those of the last model are kept."""
    plain, kept = pieces.traced, {"of": None, "graphs": {}}

    def traced(part, arguments, **how):
        if not isinstance(part, Segment | Link | Route):
            return plain(part, arguments, **how)
        weights = (*part.model.parameters(), *part.model.buffers())
        of = part.model, [(w.data_ptr(), w._version) for w in weights]
        if kept["of"] != of:
            kept.update(of=of, graphs={})
        which = type(part), *(value for name, value in vars(part).items() if name in ("k", "start", "path", "packed"))
        if which not in kept["graphs"]:
            kept["graphs"][which] = plain(part, arguments, **how)
        return kept["graphs"][which].clone()

    pieces.traced = traced
    yield
    pieces.traced = plain
