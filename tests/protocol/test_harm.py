"""Callers who mean harm, are slow, or are there when it ends: nobody else notices."""

import asyncio
import base64
import json
import random
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from helpers import model_of
from servers import start

import offramp
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow
POLICY = Threshold((0.5, 0.6, 0.7))
INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "m"
    offramp.save(model_of("classification"), folder, policy=POLICY)
    return folder


@pytest.fixture(scope="module")
def server(saved):
    process, address = start(saved, "--seconds", "3")
    yield process, address
    process.send_signal(signal.SIGTERM)
    assert "Traceback" not in process.communicate(timeout=60)[1]


def request_of(n=1, **parameters):
    x = model_of("classification").input.example(n)
    data = {"name": "images", "shape": list(x.shape), "datatype": "FP32", "data": x.flatten().tolist()}
    return {"inputs": [data], "parameters": parameters}


def connected(address, timeout=30):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout)


def head(length, *lines):
    return "\r\n".join([f"POST {INFER} HTTP/1.1", "Host: x", f"Content-Length: {length}", *lines, "", ""]).encode()


def status(address):
    body = json.dumps(request_of()).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{INFER}", body), timeout=60) as reply:
            assert json.loads(reply.read())["outputs"][0]["shape"] == [1, 5]
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def is_answered_in_the_end(address):
    """Refused at most, while others hold the places."""
    ends = time.monotonic() + 60
    while (found := status(address)) != 200:
        assert found == 503
        assert time.monotonic() < ends
        time.sleep(0.1)
    return True


def resident(process):
    """Bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class Malformed:
    """Requests with a fault each, by seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.valid = json.dumps(request_of()).encode()
        self.faults = [
            self.flipped, self.cut, self.shape, self.kind, self.data, self.deep, self.header, self.binary, self.files,
            self.parameter, self.packed, self.path, self.policy, self.state, self.huge,
        ]  # fmt: skip

    def one(self):
        """Method, path, headers, body."""
        found = self.random.choice(self.faults)()
        return found if isinstance(found, tuple) else ("POST", INFER, {}, found)

    def changed(self, **values):
        asked = request_of()
        asked["inputs"][0].update(values)
        return json.dumps(asked).encode()

    def flipped(self):
        body = bytearray(self.valid)
        for _ in range(self.random.randint(1, 50)):
            body[self.random.randrange(len(body))] = self.random.randrange(256)
        return bytes(body)

    def cut(self):
        return self.valid[: self.random.randrange(len(self.valid))]

    def shape(self):
        numbers = [0, -1, 1, 3, 2**31, 2**63, 10**30, 1.5, None, "3", [1]]
        return self.changed(shape=self.random.choices(numbers, k=self.random.randint(0, 6)))

    def kind(self):
        return self.changed(datatype=self.random.choice(["BYTES", "FP64", "INT8", "BF16", "", None, 7, "x" * 10_000]))

    def data(self):
        return self.changed(data=self.random.choice([None, [], "abc", [[]], [float("nan")] * 3, {"a": 1}, 10**400]))

    def deep(self):
        depth = self.random.choice([100, 10_000, 200_000])
        return b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"

    def header(self):
        said = self.random.choice(
            ["-1", "abc", "99999999999999999999", "5", "1e3", "\u0663".encode().decode("latin-1")]
        )
        return "POST", INFER, {"Inference-Header-Content-Length": said}, self.valid

    def binary(self):
        sizes = self.random.choice([0, 1, -5, 2**40, "7", None])
        about = {
            "name": "images",
            "shape": [1, 3, 32, 32],
            "datatype": "FP32",
            "parameters": {"binary_data_size": sizes},
        }
        said = json.dumps({"inputs": [about] * self.random.randint(1, 3)}).encode()
        body = said + self.random.randbytes(self.random.randrange(5000))
        return "POST", INFER, {"Inference-Header-Content-Length": str(len(said))}, body

    def files(self):
        content = self.random.choice([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0"])
        content += self.random.randbytes(self.random.randrange(2000))
        data = [self.random.choice([base64.b64encode(content).decode(), "===", "\ud800", None, 5])]
        asked = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data}]}
        return json.dumps(asked).encode()

    def parameter(self):
        name = self.random.choice(["timeout", "deadline_ms", "max_exit", "threshold", "priority", "sequence_id", "x"])
        value = self.random.choice([-1, 1e400, "now", None, True, [], 2**70, -0.5, float("nan")])
        return json.dumps(request_of(**{name: value})).encode()

    def packed(self):
        return "POST", INFER, {"Content-Encoding": self.random.choice(["gzip", "br", "x"])}, self.valid

    def path(self):
        where = self.random.choice(
            ["/v2/models/n/infer", "/v2/models/m/versions/2/infer", "/../../etc/passwd", "/v2/x" * 99]
        )
        return self.random.choice(["POST", "GET", "DELETE", "PUT"]), where, {}, self.valid

    def policy(self):
        said = self.random.choice([b"", b"[]", b"{}", b'{"policy": "threshold"}', b'{"policy": "\\u0000"}', self.valid])
        return "PUT", "/v2/models/m/policy", {}, said

    def state(self):
        k = self.random.choice(["0", "1", "99", "-1", "a", "1" * 400])
        return "POST", f"/v2/models/m/from/{k}/infer", {}, self.random.choice([self.valid, b"{}", b""])

    def huge(self):
        return "POST", INFER, {"Content-Length": str(self.random.choice([2**26, 2**40, 10**18]))}, b"{"


def ask_all(address, requests):
    """Statuses; requests on connections of their own, sixteen at a time."""
    found = Counter()

    async def one(method, path, headers, body):
        host, port = address.split(":")
        said = {"Host": "x", "Connection": "close", "Content-Length": str(len(body)), **headers}
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in said.items()), "", ""]
            writer.write("\r\n".join(lines).encode("latin-1", "replace") + body)
            await writer.drain()
            found[int((await reader.readline()).split()[1])] += 1
            await reader.read()
        except ConnectionError:
            found["cut"] += 1  # it answered and closed before all of the body had been sent
        finally:
            writer.close()

    async def some():
        waiting = iter(requests)

        async def worker():
            for request in waiting:
                await asyncio.wait_for(one(*request), 60)

        await asyncio.gather(*(worker() for _ in range(16)))

    asyncio.run(some())
    return found


@pytest.mark.slowest
def test_ten_thousand_malformed_requests(server):
    process, address = server
    malformed = Malformed(seed=1)
    statuses = ask_all(address, [malformed.one() for _ in range(2000)])  # buffers and caches have grown after these
    before = resident(process)
    statuses += ask_all(address, [malformed.one() for _ in range(8000)])
    assert sum(statuses.values()) == 10_000
    assert statuses.keys() <= {200, 400, 401, 404, 405, 408, 413, 415, 503, "cut"}, statuses
    assert statuses[200] + statuses["cut"] < 1500, statuses
    assert status(address) == 200
    assert resident(process) - before < 32 * 2**20
    metrics = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
    assert 'offramp_inflight_samples{model="m"} 0.0' in metrics
    assert 'outcome="error"} 0.0' in metrics


def test_a_few_malformed_requests(server):
    _, address = server
    malformed = Malformed(seed=2)
    statuses = ask_all(address, [malformed.one() for _ in range(300)])
    assert statuses.keys() <= {200, 400, 401, 404, 405, 408, 413, 415, 503, "cut"}, statuses
    assert status(address) == 200


def test_who_sends_slowly_gives_his_place_back(server):
    _, address = server
    callers = [connected(address) for _ in range(256)]  # as many as are answered at once
    for caller in callers:
        caller.sendall(head(1000) + b"{")
    assert is_answered_in_the_end(address)  # when their time is over
    for caller in callers:
        reply = caller.recv(2000)
        assert b" 408 " in reply or b" 503 " in reply
        caller.close()


def test_who_reads_slowly_holds_nobody_up(server):
    process, address = server
    body = json.dumps(request_of(64)).encode()
    before = resident(process)
    callers = [connected(address) for _ in range(40)]
    for caller in callers:
        caller.sendall(head(len(body)) + body)  # and never reads
    assert is_answered_in_the_end(address)
    for caller in callers:
        caller.close()
    assert resident(process) - before < 300 * 2**20


def test_it_ends_though_somebody_never_sends_the_rest(saved):
    process, address = start(saved, "--seconds", "2")
    with connected(address) as caller, connected(address) as idle:
        caller.sendall(head(1000) + b"{")
        idle.sendall(b"POST ")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert "Traceback" not in said
    assert process.returncode in (0, -signal.SIGTERM)


def test_on_sigterm_those_inside_are_answered_first(saved):
    process, address = start(saved)
    body = json.dumps(request_of(32, threshold=1.0)).encode()
    done, refused, lost = [], [], []

    def call():
        while True:
            try:
                caller = connected(address)
                caller.sendall(head(len(body), "Connection: close", "Expect: 100-continue"))
                if b"100 Continue" not in caller.recv(1000):
                    return
            except OSError:
                return  # nobody had begun to read it
            try:
                with caller:
                    caller.sendall(body)
                    parts = []
                    while part := caller.recv(65536):
                        parts.append(part)
                status, _, content = b"".join(parts).partition(b"\r\n\r\n")
                code = int(status.split()[1])
                if code == 200:
                    done.append(len(json.loads(content)["outputs"][0]["data"]))
                else:
                    refused.append(code)
            except Exception as error:
                lost.append(repr(error))
                return

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    for caller in callers:
        caller.join(60)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode in (0, -signal.SIGTERM)
    assert done
    assert set(refused) <= {503}
    assert not lost
