"""Saves over an artifact again and again and is killed at random moments; says what was found. A test starts it."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from helpers import tiny_model

import offramp
from offramp.policies.threshold import Threshold

place, kills = Path(sys.argv[1]) / "m", int(sys.argv[2])
torch.set_num_threads(1)
VERSIONS = [(tiny_model(seed=seed), Threshold((0.1 * seed + 0.1,) * 3)) for seed in range(2)]


def save(version):
    model, policy = VERSIONS[version]
    offramp.save(model, place, policy if version else None, record={"version": version})


def version_there():
    """Which version is whole: all of it, or an error."""
    artifact = offramp.artifact.load_artifact(place)
    version = artifact.record["version"]
    model, policy = VERSIONS[version]
    assert artifact.policy == (policy if version else None)
    assert all(torch.equal(a, b) for a, b in zip(artifact.model.parameters(), model.parameters(), strict=True))
    return version


save(0)
(place / "README.md").write_text("mine")


def start_saving():
    """A process that saves once."""
    child = os.fork()
    if child == 0:
        save(1)
        os._exit(0)
    return child


start = time.perf_counter()
for _ in range(3):
    os.waitpid(start_saving(), 0)
lasts = (time.perf_counter() - start) / 3
save(0)
found, left = [], 0
moments = random.Random(int(sys.argv[3]))
for _ in range(kills):
    child = start_saving()
    time.sleep(moments.uniform(0, 1.2 * lasts))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found.append(version_there())
    left += len(list(place.glob(".offramp-*"))) > 0
    save(0)
    assert version_there() == 0
    assert (place / "README.md").read_text() == "mine"
    assert sorted(f.name for f in place.iterdir()) == ["README.md", "card.md", "config.json", "model.safetensors"]
    assert [f.name for f in place.parent.iterdir()] == ["m"], "nothing is left beside it"
print(json.dumps({"found": found, "left": left}))
