"""Machines: devices by name, tensors that lie elsewhere, systems that lack a module, models of another type."""

import subprocess
import sys

import pytest
import torch
from helpers import images, tiny_model, tiny_vit

import offramp
from offramp import Exit, UsageError
from offramp._device import current_device, device_named
from offramp.bench import peak_memory
from offramp.engine import open_runtime
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow


def machine(monkeypatch, kind, count):
    """A machine with accelerators of a kind, as far as torch is asked."""
    accelerator = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: accelerator)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    chosen = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("kind", "count", "name", "device"),
    [
        (None, 0, "auto", "cpu"),
        ("cuda", 2, "auto", "cuda"),
        ("mps", 1, "auto", "mps"),
        ("cuda", 2, "cpu", "cpu"),
        ("cuda", 2, "cuda", "cuda"),
        ("cuda", 2, "cuda:1", "cuda:1"),
        ("mps", 1, "mps", "mps"),
    ],
)
def test_devices_by_name(monkeypatch, kind, count, name, device):
    chosen = machine(monkeypatch, kind, count)
    assert device_named(name) == torch.device(device)
    assert current_device(name) == torch.device(device)
    assert chosen == ([1] if name == "cuda:1" else [])


@pytest.mark.parametrize(
    ("kind", "count", "name", "sentence"),
    [
        (None, 0, "tpu", "it is auto, cpu, cuda"),
        (None, 0, "", "it is auto, cpu, cuda"),
        (None, 0, "cuda:x", "it is auto, cpu, cuda"),
        (None, 0, "cuda", "torch finds none here"),
        (None, 0, "mps", "torch finds none here"),
        (None, 0, "meta", "torch finds none here"),
        ("cuda", 2, "mps", "torch finds cuda only here"),
        ("cuda", 2, "cuda:2", "torch finds 2 of this kind here"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, kind, count, name, sentence):
    machine(monkeypatch, kind, count)
    with pytest.raises(UsageError, match=sentence):
        device_named(name)


class Elsewhere(torch.Tensor):
    """A tensor on a GPU, as far as numpy is concerned."""

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def cpu(self, **_):
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_on_the_processor_take_images_from_anywhere(runtime):
    model, x = tiny_model(after=(2,)), images(4)
    opened = open_runtime(runtime)
    session, static = opened.dynamic(model, Threshold((0.5,))), opened.static(model.backbone.model, x)
    elsewhere = x.as_subclass(Elsewhere)
    assert torch.equal(session(elsewhere).output, session(x).output)
    assert torch.equal(static(elsewhere), static(x))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_bf16_model_is_exported_in_fp32(runtime, tmp_path):
    model = offramp.attach(tiny_vit().bfloat16(), [Exit(2, "mlp")]).eval()
    offramp.export_onnx(model, tmp_path / "m.onnx", Threshold((0.3,)))
    found = open_runtime(runtime).open(tmp_path / "m.onnx")(images(6))
    expected = offramp.run(model, images(6), Threshold((0.3,)))
    assert (found.output - expected.output).abs().max() < 0.1
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}, "the model itself is left as it is"


def test_where_there_is_no_resource_module():
    """As on Windows."""
    code = (
        "import sys; sys.modules['resource'] = None\n"
        "import offramp.engine, offramp.bench, offramp.cli\n"
        "print(offramp.bench.peak_memory.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "peak_memory", done.stderr


def test_a_system_that_does_not_tell_its_memory(monkeypatch):
    monkeypatch.setattr("offramp.bench.memory.Path.exists", lambda _: False)
    monkeypatch.setitem(sys.modules, "resource", None)
    runtime = open_runtime("torch")
    assert peak_memory(tiny_model(), Threshold((0.5,) * 3), runtime, 1, lambda folder: None) is None
