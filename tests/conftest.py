"""What all tests stand on."""

import functools

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny tensors: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once():
    """Each export reads the source of some five hundred ONNX operators anew, a third of the time of a small one."""
    try:
        from torch.onnx._internal._lazy_import import onnxscript_apis

        onnxscript_apis.get_torchlib_ops = functools.cache(onnxscript_apis.get_torchlib_ops)
    except (ImportError, AttributeError):
        return  # private names: without them tests take longer, and nothing else
