"""Which policies a file can compute besides the one that it was exported with."""

import pytest
import torch
from helpers import images, tiny_model

import offramp
from offramp import UsageError
from offramp.engine import open_runtime
from offramp.export.metadata import store_policy
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_whose_scores_compare_keeps_its_exits(runtime, tmp_path):
    """Its heads cannot be switched: a score would be read against an exit that the policy does not ask."""
    model, path, x = tiny_model(task="counting"), tmp_path / "m.onnx", images(40)
    own = Threshold((0.2, None, 0.2), "change")
    offramp.export_onnx(model, path, own)
    before, session = path.read_bytes(), open_runtime(runtime, threads=1).open(path)
    for thresholds in ((None, None, 0.2), (0.2, 0.2, 0.2), (0.2, None, None)):
        other = Threshold(thresholds, "change")
        with pytest.raises(UsageError, match="export the model with it"):
            session(x, other)
        with pytest.raises(UsageError, match="export the model with it"):
            store_policy(path, other)
    assert path.read_bytes() == before
    for thresholds in ((0.7, None, 0.1), (None, None, None)):
        other = Threshold(thresholds, "change")
        assert torch.equal(session(x, other).exit, offramp.run(model, x, other).exit)
