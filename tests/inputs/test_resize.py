"""Preprocessing in the graph is timm's, with Pillow, to the rounding of a byte."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from helpers import spread_thresholds, tiny_vit
from PIL import Image

import offramp
from offramp.engine import open_runtime
from offramp.errors import DataError, UsageError
from offramp.inputs import ImageInput
from offramp.inputs._resize import Resize
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow

CONFIG = {"input_size": (3, 24, 24), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3), "crop_mode": "center"}


def picture(height, width, mode="RGB"):
    pixels = np.random.default_rng(height).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("size", [(24, 24), (100, 61), (37, 150), (13, 17)])
def test_it_is_what_timm_does(interpolation, crop_pct, size):
    reads = ImageInput(**CONFIG, interpolation=interpolation, crop_pct=crop_pct)
    image = picture(*size)
    (found,) = Resize(**asdict(reads))((reads.raw(image),))
    byte = 1 / 255 / min(CONFIG["std"])
    difference = (found - reads.transform()(image)).abs()
    assert float(difference.max()) <= 1.01 * byte
    assert float((difference > 1e-4).float().mean()) < 0.1, "means that end in a half fall on either side"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_takes_pictures(runtime, tmp_path):
    model = offramp.attach(tiny_vit(), [offramp.Exit(2)])
    image = picture(50, 41, "L")
    x = model.input.transform()(image)[None]
    (threshold,) = spread_thresholds(model, torch.cat([x] * 4))
    policy = Threshold((threshold + 0.05,))
    offramp.export_onnx(model, tmp_path / "m.onnx", policy, preprocess=True)
    session = open_runtime(runtime).open(tmp_path / "m.onnx")
    pictures = model.input.raw(image).expand(3, -1, -1, -1).contiguous()
    trace, expected = session(pictures), offramp.run(model, x, policy)
    assert torch.equal(trace.exit, expected.exit.expand(3))
    assert torch.allclose(trace.output, expected.output.expand(3, -1), atol=0.05)
    assert len(session(pictures[:0]).exit) == 0
    with pytest.raises(DataError, match=r"uint8 pictures of shape \(batch, height, width, 1\), these are float32"):
        session(x)


def test_what_cannot_be_in_the_graph():
    with pytest.raises(UsageError, match="square images"):
        ImageInput(**CONFIG, interpolation="lanczos", crop_pct=1.0).graph()
