"""The server: clients of the protocol are answered as the model answers, and what is wrong gets a sentence."""

import base64
import gc
import io
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from helpers import model_of
from PIL import Image
from servers import start

import offramp
from offramp import UsageError
from offramp.policies import policy_to_json
from offramp.policies.threshold import Threshold
from offramp.protocol.http import Limits, build_app, run_app
from offramp.serving import Service

pytestmark = pytest.mark.slow

POLICY = Threshold((0.5, 0.6, 0.7))
INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def model():
    made = model_of("classification")
    made.classes = tuple("abcde")
    return made


@pytest.fixture
def client(model):
    """A client of a server in this process."""
    with open_client(model) as found:
        yield found


def open_client(model, key=None, **limits):
    from fastapi.testclient import TestClient

    return TestClient(build_app(Service(model, POLICY), "m", Limits(**limits), key))


def picture(seed=0, size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def prepared(x, **more):
    return {"inputs": [{"name": "images", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}], **more}


def files(*contents, **more):
    data = [base64.b64encode(content).decode() for content in contents]
    return {"inputs": [{"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}], **more}


def outputs(answer):
    assert answer.status_code == 200, answer.text
    return {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in answer.json()["outputs"]}


def test_it_says_what_it_is(client, model):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "schedule_policy", "early_exit"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models").json() == {"models": ["m"]}
    for path in ("/v2/models/m", "/v2/models/m/versions/1"):
        said = client.get(path).json()
        assert said["name"] == "m"
        assert [i["name"] for i in said["inputs"]] == ["image", *model.input.shapes]
        assert client.get(f"{path}/ready").json() == {"name": "m", "ready": True}
    names = [o["name"] for o in said["outputs"]]
    assert names == [o["name"] for o in client.post(INFER, json=files(picture())).json()["outputs"]]


def test_prepared_samples_and_files_are_answered_as_the_model_answers(client, model):
    contents = [picture(seed) for seed in range(5)]
    prepare = model.input.transform()
    x = torch.stack([prepare(model.input.read(io.BytesIO(content))) for content in contents])
    expected = offramp.run(model, x, POLICY)
    for sent in (files(*contents), prepared(x)):
        found = outputs(client.post(INFER, json=sent))
        assert found["exit"].tolist() == expected.exit.tolist()
        np.testing.assert_allclose(found["output"], expected.output.numpy(), rtol=1e-4, atol=1e-5)
        assert found["label"].tolist() == ["abcde"[k] for k in expected.output.argmax(1)]
        assert not found["deadline_exit"].any()


def test_what_is_asked_of_a_request_is_done_for_it(client, model):
    x = model.input.example(3)
    for more, exits in (({"max_exit": 0}, [0] * 3), ({"threshold": 1.0}, [3] * 3), ({"threshold": 0.0}, [0] * 3)):
        assert outputs(client.post(INFER, json=prepared(x, parameters=more)))["exit"].tolist() == exits


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"parameters": {"deadline": 5}}, "there is no parameter 'deadline'"),
        ({"parameters": {"deadline_ms": -5}}, "deadline_ms is -5; it is a number above 0"),
        ({"parameters": {"timeout": "soon"}}, "timeout is 'soon'"),
        ({"parameters": {"max_exit": 1.5}}, "max_exit is 1.5"),
        ({"parameters": {"max_exit": -1}}, "max_exit is -1"),
        ({"parameters": {"threshold": 2}}, "the threshold is 2"),
        ({"inputs": []}, "no list of inputs"),
        ({"outputs": [{"name": "logits"}]}, "there is no output 'logits'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(client, model, changed, said):
    answer = client.post(INFER, json=prepared(model.input.example(1)) | changed)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_inputs_that_are_none_of_the_models(client, model):
    x = model.input.example(2)
    for sent, said in (
        (prepared(x[:, :, :5]), "input 'images' is FP32"),
        (prepared(x * 1e39), "not finite"),
        (files(b"no image"), "image 0 is no image"),
        (files(picture(), picture()[:200]), "image 1 could not be read as an image"),
        (files(*[picture()] * 65), "at most 64 samples, this one 65"),
        ({"inputs": [{**prepared(x)["inputs"][0], "name": "pixels"}]}, "the model's input is image, or images"),
    ):
        answer = client.post(INFER, content=json.dumps(sent))
        assert answer.status_code == 400
        assert said in answer.json()["error"]
    assert client.post("/v2/models/other/infer", json=prepared(x)).status_code == 404
    assert outputs(client.post(INFER, json=prepared(x)))["exit"].shape == (2,)


def test_limits_hold_before_anything_is_read(model):
    with open_client(model, body=1000) as client:
        assert client.post(INFER, content=b"x" * 1001).status_code == 413
        assert client.post(INFER, content=iter([b"x" * 600] * 5)).status_code == 413  # without a length
        assert client.post(INFER, content=b"", headers={"content-encoding": "gzip"}).status_code == 415
    with open_client(model, requests=0) as client:
        answer = client.post(INFER, json=prepared(model.input.example(1)))
        assert (answer.status_code, answer.json()["error"]) == (503, "full: 0 requests are being answered")


@pytest.mark.parametrize("length", ["-1", "1.5", "", "9" * 5000, "٣"])
def test_lengths_that_are_none(client, model, length):
    """Of the JSON part; that of the body is the web server's to read."""
    headers = {"Inference-Header-Content-Length": length.encode()}
    answer = client.post(INFER, content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 200


def test_a_batch_that_fails_is_a_status_of_its_own(client, model, monkeypatch, caplog):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr("offramp.serving.service.turn", fails)
    answer = client.post(INFER, json=prepared(model.input.example(2)))
    assert (answer.status_code, answer.json()) == (500, {"error": "this could not be computed: MemoryError"})
    monkeypatch.undo()
    assert outputs(client.post(INFER, json=prepared(model.input.example(2))))["exit"].shape == (2,)
    assert 'outcome="error"} 1.0' in client.get("/metrics").text


def test_who_cannot_be_answered_in_time_is_told_at_once(client, model):
    answer = client.post(INFER, json=prepared(model.input.example(1), parameters={"timeout": 1}))
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("too short")


def test_what_stands_is_not_looked_through_while_it_serves(model):
    with open_client(model):
        assert gc.get_freeze_count() > 100_000
    assert gc.get_freeze_count() == 0


def test_who_is_refused_is_not_decoded(client, monkeypatch):
    assert client.post(INFER, json=files(b"no image")).status_code == 400
    assert 'offramp_inflight_samples{model="m"} 0.0' in client.get("/metrics").text
    monkeypatch.setattr("offramp.serving.scheduler.Scheduler.hold", lambda *_: "full: 512 samples are inside")
    answer = client.post(INFER, json=files(b"no image"))
    assert (answer.status_code, answer.json()) == (503, {"error": "full: 512 samples are inside"})


def test_a_key_is_asked_for(model):
    sent = prepared(model.input.example(1))
    with open_client(model, key="secret") as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            assert client.post(INFER, json=sent, headers=headers).status_code == 401
        assert client.post(INFER, json=sent, headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/v2/health/ready").status_code == 200


def test_requests_and_exits_are_counted(client, model):
    client.post(INFER, json=prepared(model.input.example(3), parameters={"max_exit": 0}))
    client.post(INFER, content=b"nothing")
    said = client.get("/metrics").text
    assert 'offramp_requests_total{model="m",outcome="ok"} 1.0' in said
    assert 'offramp_requests_total{model="m",outcome="rejected"} 1.0' in said
    assert 'offramp_requests_total{model="m",outcome="error"} 0.0' in said
    assert 'offramp_exits_total{exit="0",model="m"} 3.0' in said
    assert 'offramp_queue_duration_seconds_count{model="m"} 3.0' in said
    assert 'offramp_inflight_samples{model="m"} 0.0' in said


def test_another_policy_takes_its_place_without_a_restart(model):
    x, path = model.input.example(4), "/v2/models/m/policy"
    headers = {"authorization": "Bearer k"}
    with open_client(model, key="k") as client:
        for thresholds, exit in (((0.0, 1.0, 1.0), 0), ((1.0, 1.0, 1.0), 3)):
            sent = policy_to_json(Threshold(thresholds))
            assert client.put(path, json=sent).status_code == 401
            assert client.put(path, json=sent, headers=headers).status_code == 200
            found = outputs(client.post(INFER, json=prepared(x), headers=headers))
            assert found["exit"].tolist() == [exit] * 4
        for wrong in (b"", b"[]", b"{}", json.dumps(policy_to_json(Threshold((0.5,)))).encode()):
            answer = client.put(path, content=wrong, headers=headers)
            assert answer.status_code == 400
            assert len(answer.json()["error"]) < 200
        found = outputs(client.post(INFER, json=prepared(x), headers=headers))
        assert found["exit"].tolist() == [3] * 4, "a policy that is none changes nothing"


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra_one_sentence_says_what_to_install(missing, tmp_path, model):
    offramp.save(model, tmp_path / "m", policy=POLICY)
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['offramp', 'serve', {str(tmp_path / 'm')!r}]\n"
        "from offramp.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "offramp: serving over HTTP needs more packages: pip install 'offramp[serve]'\n"


def test_https_is_asked_for_whole():
    for given in ({"certificate": "a"}, {"private_key": "a"}, {"client_authority": "a"}):
        with pytest.raises(UsageError, match="HTTPS needs a certificate and its private key"):
            run_app(None, "127.0.0.1", 1, **given)


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """A server as ``offramp serve`` starts one: a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    offramp.save(model, folder / "m", policy=POLICY)
    process, address = start(folder / "m")
    yield address
    process.send_signal(signal.SIGTERM)
    assert "Traceback" not in process.communicate(timeout=30)[1]


@pytest.mark.filterwarnings("ignore")
def test_tritons_client_is_answered(server, model):
    from tritonclient.http import InferenceServerClient, InferenceServerException, InferInput, InferRequestedOutput

    x = model.input.example(4)
    expected = offramp.run(model, x, POLICY)
    client = InferenceServerClient(server)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.get_model_metadata("m")["platform"] == "offramp_pytorch"
    for binary in (True, False):
        given = InferInput("images", list(x.shape), "FP32")
        given.set_data_from_numpy(x.numpy(), binary_data=binary)
        wanted = [InferRequestedOutput(name, binary_data=binary) for name in ("output", "exit", "label")]
        found = client.infer("m", [given], outputs=wanted, request_id="7", timeout=5_000_000)
        np.testing.assert_allclose(found.as_numpy("output"), expected.output.numpy(), rtol=1e-4, atol=1e-5)
        assert found.as_numpy("exit").tolist() == expected.exit.tolist()
        assert [v.decode() if isinstance(v, bytes) else v for v in found.as_numpy("label")] == [
            "abcde"[k] for k in expected.output.argmax(1)
        ]
        assert found.get_response()["id"] == "7"
    image = InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([picture()], dtype=np.object_))
    assert client.infer("m", [image]).as_numpy("exit").shape == (1,)
    with pytest.raises(InferenceServerException, match="there is no output 'logits'"):
        client.infer("m", [image], outputs=[InferRequestedOutput("logits")])


@pytest.mark.filterwarnings("ignore")
def test_the_protocols_own_client_is_answered(server, model):
    import httpx
    from open_inference.openapi.client import OpenInferenceClient
    from open_inference.openapi.core.api_error import ApiError
    from open_inference.openapi.types import InferenceRequest, RequestInput, RequestOutput, TensorData

    x = model.input.example(3)
    expected = offramp.run(model, x, POLICY)
    data = TensorData.parse_obj(x.flatten().tolist())
    given = RequestInput(name="images", shape=list(x.shape), datatype="FP32", data=data)

    def ask(name, **more):
        return client.model_infer(name, request=InferenceRequest(id="7", inputs=[given], **more))

    with httpx.Client() as session:
        client = OpenInferenceClient(base_url=f"http://{server}", httpx_client=session)
        client.check_server_liveness()
        client.check_server_readiness()
        client.check_model_readiness("m")
        assert client.read_server_metadata().name == "offramp"
        assert [i.name for i in client.read_model_metadata("m").inputs] == ["image", "images"]
        found = ask("m", outputs=[RequestOutput(name="exit")], parameters={"deadline_ms": 5000})
        assert (found.id, found.model_name) == ("7", "m")
        assert [list(o.data.__root__) for o in found.outputs] == [expected.exit.tolist()]
        for wrong, said in ((("m", {"deadline": 5}), "there is no parameter 'deadline'"), (("n", {}), "nothing at")):
            with pytest.raises(ApiError, match=said):
                ask(wrong[0], parameters=wrong[1])


def test_callers_that_go_away_take_nobody_with_them(server, model):
    body = json.dumps(prepared(model.input.example(16))).encode()
    host, port = server.split(":")
    for cut in (50, len(body) // 2, len(body)):
        for _ in range(5):
            with socket.create_connection((host, int(port))) as caller:
                head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                caller.sendall(head.encode() + body[:cut])
    answer = urllib.request.urlopen(urllib.request.Request(f"http://{server}{INFER}", body), timeout=30)
    assert answer.status == 200
    for _ in range(100):
        metrics = urllib.request.urlopen(f"http://{server}/metrics").read().decode()
        if 'offramp_inflight_samples{model="m"} 0.0' in metrics:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("samples of callers who went away are still inside")
    assert 'offramp_requests_total{model="m",outcome="error"} 0.0' in metrics
