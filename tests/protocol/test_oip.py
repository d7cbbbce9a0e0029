"""The protocol: what clients send is read, and what nobody should send gets one sentence."""

import base64
import json
import random

import numpy as np
import pytest

from offramp import DataError
from offramp.protocol.oip import HEADER, read_request, write_response

PIXELS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


def body(*inputs, **more):
    return json.dumps({"inputs": list(inputs), **more}).encode()


def tensor(**changed):
    return {"name": "x", "shape": [2, 2, 3], "datatype": "FP32", "data": PIXELS.tolist(), **changed}


def test_numbers_in_json_nested_or_flat():
    for data in (PIXELS.tolist(), PIXELS.ravel().tolist()):
        asked = read_request(body(tensor(data=data), id="7", parameters={"deadline_ms": 5}))
        assert np.array_equal(asked.inputs["x"], PIXELS)
        assert asked.inputs["x"].dtype == np.float32
        assert (asked.id, asked.parameters) == ("7", {"deadline_ms": 5})


def test_binary_tensors_stand_one_behind_the_other():
    files = [b"", b"abc"]
    packed = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    head = body(
        tensor(data=None, parameters={"binary_data_size": 48}),
        {"name": "f", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}},
    )
    asked = read_request(head + PIXELS.tobytes() + packed, len(head))
    assert np.array_equal(asked.inputs["x"], PIXELS)
    assert asked.inputs["f"] == files


def test_files_in_json_are_base64():
    said = {"name": "f", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(b"abc").decode()]}
    assert read_request(body(said)).inputs["f"] == [b"abc"]


def test_outputs_come_as_they_were_asked_for():
    outputs = {"output": PIXELS[0], "exit": np.array([0, 3], np.int32), "label": [b"cat", b"dog"]}
    wanted = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "exit"}]
    written, headers = write_response(read_request(body(tensor(), id="a", outputs=wanted)), "m", outputs, {})
    said = json.loads(written[: int(headers[HEADER])])
    assert [o["name"] for o in said["outputs"]] == ["label", "exit"]
    assert said["outputs"][1] == {"name": "exit", "datatype": "INT32", "shape": [2], "data": [0, 3]}
    assert written[int(headers[HEADER]) :] == b"\x03\0\0\0cat\x03\0\0\0dog"
    written, headers = write_response(read_request(body(tensor())), "m", outputs, {})
    assert HEADER not in headers
    assert json.loads(written)["outputs"][2]["data"] == ["cat", "dog"]
    asked = read_request(body(tensor(), parameters={"binary_data_output": True}))
    written, headers = write_response(asked, "m", {"output": PIXELS}, {})
    assert np.array_equal(np.frombuffer(written[int(headers[HEADER]) :], "<f4"), PIXELS.ravel())
    with pytest.raises(DataError, match="there is no output 'logits'; there are output"):
        write_response(read_request(body(tensor(), outputs=[{"name": "logits"}])), "m", {"output": PIXELS}, {})


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no list of inputs"),
        (body(), "no list of inputs"),
        (body(3), "an input: that is a JSON object"),
        (body(tensor(name=3)), "has no name"),
        (body(tensor(), tensor()), "'x' is there twice"),
        (body(tensor(shape=[2, -1])), "no list of sizes"),
        (body(tensor(shape=[2, True])), "no list of sizes"),
        (body(tensor(shape=[0])), "has 0 values"),
        (body(tensor(shape=[10**6] * 5)), "at most"),
        (body(tensor(shape=[2])), "has 12 values, and its shape is"),
        (body(tensor(datatype="FP16")), "it is FP32 or BYTES"),
        (body(tensor(data=None)), "has no data"),
        (body(tensor(data=[[1], [1, 2]])), "are no numbers"),
        (body(tensor(data=["a"] * 12)), "are no numbers"),
        (body(tensor(data=[{}] * 12)), "are no numbers"),
        (body(tensor(datatype="BYTES", shape=[1], data=["!"])), "no base64"),
        (body(tensor(datatype="BYTES", shape=[1], data=[3])), "no base64"),
        (body(tensor(parameters={"binary_data_size": 48})), "binary_data_size of 48, and 0 bytes"),
        (body(tensor(parameters={"binary_data_size": -1})), "binary_data_size of -1"),
        (body(tensor(parameters=[])), "that is a JSON object"),
        (body(tensor(), outputs={}), "outputs is no list"),
        (body(tensor(), parameters=3), "that is a JSON object"),
    ],
)
def test_what_is_not_the_protocol_gets_one_sentence(sent, said):
    with pytest.raises(DataError, match=said) as raised:
        read_request(sent)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("elements", "size"), [(b"\x02\0\0\0a", 1), (b"\x01\0\0", 1), (b"", 1), (b"\0\0\0\0" * 2, 1), (b"\0\0\0\0", 2)]
)
def test_elements_that_do_not_fit_their_lengths(elements, size):
    head = body({"name": "f", "shape": [size], "datatype": "BYTES", "parameters": {"binary_data_size": len(elements)}})
    with pytest.raises(DataError):
        read_request(head + elements, len(head))
    with pytest.raises(DataError, match="left behind the last"):
        read_request(body(tensor()) + b"more", len(body(tensor())))
    for length in (-1, 10**9):
        with pytest.raises(DataError, match="and the body has"):
            read_request(head, length)


def test_ten_thousand_damaged_requests_are_read_or_refused():
    """Bytes changed, left out and put in, and the header's length with them: nothing but DataError comes out."""
    rng = random.Random(0)
    head = body(tensor(data=None, parameters={"binary_data_size": 48}), parameters={"timeout": 1})
    whole, refused = head + PIXELS.tobytes(), 0
    for _ in range(10_000):
        sent = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(sent))
            match rng.randrange(3):
                case 0:
                    sent[place] = rng.randrange(256)
                case 1:
                    del sent[place : place + rng.randrange(20)]
                case _:
                    sent[place:place] = rng.randbytes(rng.randrange(20))
        try:
            read_request(bytes(sent), rng.choice([None, len(head), rng.randrange(2 * len(head))]))
        except DataError:
            refused += 1
    assert 5_000 < refused < 10_000
