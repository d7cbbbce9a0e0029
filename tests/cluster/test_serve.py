"""Replicas under Ray Serve: the protocol's own client unchanged, another policy without another process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.serving.servers import free_port

pytest.importorskip("ray")
MANIFEST = Path(__file__).parents[2] / "deploy" / "rayservice.yaml"

PROGRAM = """
import json
import os
import signal
import sys
import time

import ray
import torch
import yaml
from ray import serve
from ray.serve.context import _get_global_client as client_of_serve
from ray.serve.schema import ServeDeploySchema
from ray.util.state import list_actors
from tritonclient.http import InferenceServerClient, InferenceServerException, InferInput

import offramp
from offramp.policies import policy_to_json

port = int(sys.argv[1])
ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
model, policy = offramp.load("cifar10")
x = model.input.example(24).numpy()
manifest = yaml.safe_load(open(sys.argv[2]))
config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
config["applications"][0]["args"] = {"model": "cifar10", "name": "box"}
replicas = config["applications"][0]["deployments"][0]
del replicas["autoscaling_config"]
replicas.update(num_replicas=2, ray_actor_options={"num_cpus": 0.5})
client = InferenceServerClient(f"127.0.0.1:{port}", connection_timeout=120, network_timeout=120)


def run(user_config):
    config["applications"][0]["deployments"][0]["user_config"] = user_config
    client_of_serve().deploy_apps(ServeDeploySchema.model_validate(config), _blocking=False)


def statuses():
    return [app.status.value for app in serve.status().applications.values()]


def until(true):
    ends = time.monotonic() + 240
    while not true():
        assert time.monotonic() < ends and "DEPLOY_FAILED" not in statuses(), serve.status()
        time.sleep(0.2)


def ask(**parameters):
    images = InferInput("images", list(x.shape), "FP32")
    images.set_data_from_numpy(x)
    return client.infer("box", [images], **parameters)


def answered():
    try:
        return exits()
    except InferenceServerException:
        return False


def exits():
    return {k for _ in range(6) for k in ask().as_numpy("exit").tolist()}


def actors():
    return sorted(actor.actor_id for actor in list_actors() if "Served" in actor.class_name and actor.state == "ALIVE")


run({})
until(lambda: statuses() == ["RUNNING"])
told = {"ready": client.is_model_ready("box"), "name": client.get_model_metadata("box")["name"]}
told["labels"] = [label.decode() for label in ask().as_numpy("label")]
told["expected"] = [model.classes[k] for k in offramp.run(model, torch.from_numpy(x), policy).output.argmax(1)]
told["replicas"] = actors()
own = exits()
for threshold, expected in ((1.0, {4}), (0.0, {0})):
    run({"policy": {**policy_to_json(policy), "thresholds": [threshold] * 4}})
    until(lambda: exits() == expected)
run({})
until(lambda: exits() == own)
told["replicas then"] = actors()
os.kill(next(actor.pid for actor in list_actors(detail=True) if actor.actor_id == actors()[0]), signal.SIGKILL)
until(lambda: len(actors()) == 2 and actors() != told["replicas"])
until(answered)
told["exits of another replica"] = sorted(exits() ^ own)
try:
    ask(timeout=1)
except Exception as error:
    told["too late"] = str(error)
print(json.dumps(told))
"""


@pytest.mark.slowest
def test_replicas_answer_the_protocol_take_up_policies_as_they_run_and_are_replaced_when_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), str(free_port()), str(MANIFEST)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ready"]
    assert told["name"] == "box"
    assert told["labels"] == told["expected"]
    assert len(told["replicas"]) == 2
    assert told["replicas"] == told["replicas then"]
    assert told["exits of another replica"] == []
    assert "too short" in told["too late"]
