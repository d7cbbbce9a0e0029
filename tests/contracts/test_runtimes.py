"""Every runtime of the table computes what PyTorch computes."""

import pytest
import torch
from helpers import images, tiny_model

from offramp.registry import RUNTIMES


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtime(name):
    model = tiny_model()
    runtime = RUNTIMES.resolve(name)(model)
    x = images(6)
    keep = torch.tensor([4, 1])
    with torch.inference_mode():
        expected = model(x)
        h = runtime.stem(x)
        for k in range(runtime.num_exits):
            h = runtime.step(k, h)
            assert torch.allclose(runtime.head(k, h), expected[k], atol=1e-5)
        h = runtime.step(runtime.num_exits, h)
        assert torch.allclose(runtime.final(h), expected[-1], atol=1e-5)
        assert torch.allclose(runtime.final(runtime.take(h, keep)), expected[-1][keep], atol=1e-5)
        assert runtime.final(runtime.take(h, keep[:0])).shape == (0, 5)
