"""The same service over gRPC, with and without TLS: the protocol's own client is answered as over HTTP."""

import io
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import torch
import trustme
from fastapi.testclient import TestClient
from helpers import model_of
from open_inference.grpc.protocol import ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, ServerReadyRequest
from open_inference.grpc.service import GRPCInferenceServiceStub
from PIL import Image

import offramp
from offramp import UsageError
from offramp.policies.threshold import Threshold
from offramp.protocol.front import Limits
from offramp.protocol.grpc import grpc_beside
from offramp.protocol.http import build_app
from offramp.protocol.oip import packed
from offramp.serving import Service

pytestmark = pytest.mark.slow

POLICY = Threshold((0.5, 0.6, 0.7))


@pytest.fixture(scope="module")
def model():
    made = model_of("classification")
    made.classes = tuple("abcde")
    return made


@contextmanager
def asking(model, key=None, **limits):
    """A stub of the protocol's own client, and the service that it asks."""
    port = free_port()
    service = Service(model, POLICY)
    app = build_app(service, "m", Limits(**limits), key, [grpc_beside("127.0.0.1", port)])
    with TestClient(app), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield GRPCInferenceServiceStub(channel), service


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def picture(seed=0):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def request(x, raw=True, outputs=(), **parameters):
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    asked = ModelInferRequest(model_name="m", id="7")
    tensor = asked.inputs.add(name="images", datatype="FP32", shape=x.shape)
    if raw:
        asked.raw_input_contents.append(packed(x.numpy()))
    else:
        tensor.contents.fp32_contents.extend(x.flatten().tolist())
    for name in outputs:
        asked.outputs.add(name=name)
    for name, value in parameters.items():
        setattr(asked.parameters[name], kinds[type(value)], value)
    return asked


def outputs(answer):
    kinds = {"FP32": "<f4", "INT32": "<i4", "BOOL": "?"}
    return {
        said.name: np.frombuffer(raw, kinds[said.datatype]).reshape(said.shape) if said.datatype in kinds else raw
        for said, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def refused(call, asked, code, said, **how):
    with pytest.raises(grpc.RpcError) as found:
        call(asked, **how)
    assert found.value.code() == code
    assert said in found.value.details()


def test_it_is_answered_as_the_model_answers(model):
    x = model.input.example(5)
    expected = offramp.run(model, x, POLICY)
    with asking(model) as (stub, _):
        assert stub.ServerReady(ServerReadyRequest()).ready
        assert stub.ModelReady(ModelReadyRequest(name="m")).ready
        about = stub.ModelMetadata(ModelMetadataRequest(name="m"))
        assert [i.name for i in about.inputs] == ["image", "images"]
        for raw in (True, False):
            answer = stub.ModelInfer(request(x, raw))
            found = outputs(answer)
            assert (answer.id, answer.model_name) == ("7", "m")
            assert list(found) == [o.name for o in about.outputs]
            assert found["exit"].tolist() == expected.exit.tolist()
            np.testing.assert_allclose(found["output"], expected.output.numpy(), rtol=1e-4, atol=1e-5)
        assert list(outputs(stub.ModelInfer(request(x, outputs=("score", "exit"))))) == ["score", "exit"]
        assert outputs(stub.ModelInfer(request(x, max_exit=0)))["exit"].tolist() == [0] * 5
        assert outputs(stub.ModelInfer(request(x, threshold=1.0)))["exit"].tolist() == [3] * 5


@pytest.mark.parametrize("raw", [True, False])
def test_files(model, raw):
    contents = [picture(seed) for seed in range(3)]
    asked = ModelInferRequest(model_name="m")
    tensor = asked.inputs.add(name="image", datatype="BYTES", shape=[3])
    if raw:
        asked.raw_input_contents.append(packed(contents))
    else:
        tensor.contents.bytes_contents.extend(contents)
    prepare = model.input.transform()
    x = [prepare(model.input.read(io.BytesIO(content))) for content in contents]
    with asking(model) as (stub, _):
        found = outputs(stub.ModelInfer(asked))
    expected = offramp.run(model, torch.stack(x), POLICY)
    assert found["exit"].tolist() == expected.exit.tolist()
    assert found["label"] == packed(["abcde"[k].encode() for k in expected.output.argmax(1)])


def test_what_cannot_be_asked_gets_a_code_and_a_sentence(model):
    x = model.input.example(2)
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    with asking(model, key=None, body=10**6) as (stub, _):
        other = request(x)
        other.model_name = "n"
        refused(stub.ModelInfer, other, grpc.StatusCode.NOT_FOUND, "there is no model 'n'; the model is called 'm'")
        refused(stub.ModelReady, ModelReadyRequest(name="n"), grpc.StatusCode.NOT_FOUND, "there is no model 'n'")
        twice = request(x)
        twice.inputs.add(name="images", datatype="FP32", shape=x.shape)
        refused(stub.ModelInfer, twice, invalid, "1 raw contents for 2 inputs")
        twice.raw_input_contents.append(packed(x.numpy()))
        refused(stub.ModelInfer, twice, invalid, "input 'images' is there twice")
        short = request(x)
        short.raw_input_contents[0] = b"1234"
        refused(stub.ModelInfer, short, invalid, "input 'images' has 4 bytes")
        kind = request(x)
        kind.inputs[0].datatype = "FP16"
        refused(stub.ModelInfer, kind, invalid, "the datatype of input 'images' is 'FP16'")
        empty = ModelInferRequest(model_name="m")
        refused(stub.ModelInfer, empty, invalid, "the model's input is image, or images")
        files = ModelInferRequest(model_name="m")
        files.inputs.add(name="image", datatype="BYTES", shape=[2]).contents.bytes_contents.append(b"1")
        refused(stub.ModelInfer, files, invalid, "input 'image' has 1 values")
        refused(stub.ModelInfer, request(x, outputs=("logits",)), invalid, "there is no output 'logits'")
        refused(stub.ModelInfer, request(x, deadline_ms=-1.0), invalid, "deadline_ms is -1")
        refused(stub.ModelInfer, request(x, timeout=1), grpc.StatusCode.UNAVAILABLE, "too short")
        large = ModelInferRequest(model_name="m", raw_input_contents=[b"x" * 10**6])
        refused(stub.ModelInfer, large, grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max")
        assert outputs(stub.ModelInfer(request(x)))["exit"].shape == (2,)


def test_a_key_is_asked_for(model):
    x = model.input.example(1)
    with asking(model, key="secret") as (stub, _):
        for said in (None, (("authorization", "Bearer wrong"),)):
            refused(stub.ModelInfer, request(x), grpc.StatusCode.UNAUTHENTICATED, "wants a key", metadata=said)
        assert stub.ModelInfer(request(x), metadata=(("authorization", "Bearer secret"),)).id == "7"


def test_the_deadline_of_the_call_is_one_of_the_request(model, monkeypatch):
    """A batch that takes longer than the caller waits: he has hung up, and nothing of his is left inside."""
    from offramp.serving import service as module

    plain = module.turn

    def slow(*given):
        time.sleep(0.9)
        return plain(*given)

    x = model.input.example(3)
    with asking(model) as (stub, service):
        assert stub.ModelInfer(request(x), timeout=30).id == "7"
        monkeypatch.setattr(module, "turn", slow)
        with pytest.raises(grpc.RpcError) as found:
            stub.ModelInfer(request(x, threshold=1.0), timeout=0.6)
        assert found.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        for _ in range(100):
            if service.scheduler.inside == 0:
                break
            time.sleep(0.05)
        assert service.scheduler.inside == 0


def test_a_batch_that_fails_is_a_code_of_its_own(model, monkeypatch, caplog):
    def fails(*_):
        raise MemoryError

    with asking(model) as (stub, _):
        monkeypatch.setattr("offramp.serving.service.turn", fails)
        said = "this could not be computed: MemoryError"
        refused(stub.ModelInfer, request(model.input.example(1)), grpc.StatusCode.INTERNAL, said)
        monkeypatch.undo()
        assert stub.ModelInfer(request(model.input.example(1))).id == "7"


def test_a_port_that_is_taken_is_said(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        app = build_app(Service(model, POLICY), "m", beside=[grpc_beside("127.0.0.1", taken.getsockname()[1])])
        with pytest.raises(UsageError, match="gRPC cannot listen at"), TestClient(app):
            pass


@pytest.fixture(scope="module")
def secured(model, tmp_path_factory):
    """``offramp serve`` with a certificate, which asks its callers for one: a process of its own."""
    folder = tmp_path_factory.mktemp("secured")
    offramp.save(model, folder / "m", policy=POLICY)
    authority, ours, theirs = trustme.CA(), trustme.CA(), {}
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    ours.cert_pem.write_to_path(folder / "callers.pem")
    for name, issued_by in (("caller", ours), ("stranger", authority)):
        theirs[name] = issued_by.issue_cert("caller@example.org")
        theirs[name].private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    ports = free_port(), free_port()
    line = [sys.executable, "-m", "offramp", "serve", str(folder / "m"), "--device", "cpu"]
    line += ["--port", str(ports[0]), "--grpc-port", str(ports[1]), "--certificate", str(folder / "cert.pem")]
    line += ["--private-key", str(folder / "key.pem"), "--client-authority", str(folder / "callers.pem")]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for _ in range(600):
        assert process.poll() is None, process.stderr.read()
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", ports[0])) == 0:
                break
        time.sleep(0.1)
    yield folder, ports, theirs
    process.terminate()
    assert "Traceback" not in process.communicate(timeout=30)[1]


def test_https_with_certificates_on_both_sides(secured):
    import ssl

    folder, (port, _), _ = secured

    def ask(scheme, caller=None):
        context = ssl.create_default_context(cafile=folder / "authority.pem")
        if caller is not None:
            context.load_cert_chain(folder / f"{caller}.pem")
        more = {"context": context} if scheme == "https" else {}
        return urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/v2/health/ready", timeout=10, **more).status

    assert ask("https", "caller") == 200
    for wrong in (("https",), ("https", "stranger"), ("http",)):
        with pytest.raises(OSError):  # noqa: PT011 - refused, reset or an SSL error, by the library's version
            ask(*wrong)


def test_grpc_with_certificates_on_both_sides(secured, model):
    folder, (_, port), theirs = secured
    authority = (folder / "authority.pem").read_bytes()

    def ask(caller):
        pair = (None, None)
        if caller is not None:
            pair = theirs[caller].private_key_pem.bytes(), theirs[caller].cert_chain_pems[0].bytes()
        with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority, *pair)) as channel:
            return GRPCInferenceServiceStub(channel).ModelInfer(request(model.input.example(1)), timeout=10).id

    assert ask("caller") == "7"
    for wrong in (None, "stranger"):
        with pytest.raises(grpc.RpcError):
            ask(wrong)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
        GRPCInferenceServiceStub(channel).ModelInfer(request(model.input.example(1)), timeout=10)


@pytest.mark.parametrize("missing", ["grpc", "open_inference"])
def test_without_the_extra_one_sentence_says_what_to_install(missing, tmp_path, model):
    offramp.save(model, tmp_path / "m", policy=POLICY)
    words = ["offramp", "serve", str(tmp_path / "m"), "--grpc-port", "8001"]
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = {words!r}\nfrom offramp.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "offramp: serving over gRPC needs more packages: pip install 'offramp[grpc]'\n"
