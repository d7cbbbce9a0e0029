"""Parts of somebody else's package: everything knows them by name, and nothing here knows the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import offramp
from offramp import ArtifactError
from offramp.policies import load_policy

pytestmark = pytest.mark.slowest

HERE = Path(__file__).parent
SRC = Path(offramp.__file__).parent


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """What the road of the toy package gave, and its folder; the package is installed for that road alone."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(HERE / "toy", folder / "source")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(folder / "site"), str(folder / "source")], check=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
    done = subprocess.run(
        [sys.executable, str(HERE / "toy" / "road.py"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "result.json").read_text())


def test_every_name_is_listed(toy):
    names = toy[1]["names"]
    for kind, name in {
        "heads": "toy-mean",
        "policies": "toy-falling",
        "objectives": "toy-late",
        "tasks": "toy-near",
        "inputs": "toy-signal",
    }.items():
        assert name in names[kind]


def test_the_road_leads_to_answers(toy):
    _, found = toy
    assert found["trained"]["validation"]["nearness"] > 0.8
    assert found["policy"] == "toy-falling"
    assert found["evaluated"]["dynamic"]["metric"] == "nearness"
    assert found["evaluated"]["dynamic"]["value"] > 0.8
    assert found["evaluated"]["dynamic"]["speedup"]["macs"] > 1
    ours, *files = found["answers"]
    assert len({row["exit"] for row in ours}) > 1
    for rows in files:
        assert [(r["label"], r["exit"]) for r in rows] == [(r["label"], r["exit"]) for r in ours]


def test_an_artifact_says_which_package_it_needs(toy):
    folder, found = toy
    assert found["config"]["packages"] == {
        "heads": {"toy-mean": "offramp-toy"},
        "inputs": {"toy-signal": "offramp-toy"},
        "policies": {"toy-falling": "offramp-toy"},
        "tasks": {"toy-near": "offramp-toy"},
    }
    for place in ("model", "other"):
        with pytest.raises(ArtifactError, match="of the package 'offramp-toy', which is not installed"):
            offramp.load(folder / place)
    with pytest.raises(ArtifactError, match="there is no policy 'toy-falling'"):
        load_policy(folder / "policy.json")


def test_an_exported_file_says_so_too(toy):
    from offramp.export.metadata import read_graph

    with pytest.raises(ArtifactError, match="of the package 'offramp-toy', which is not installed"):
        read_graph(toy[0] / "model.onnx")


def test_nothing_here_knows_the_package():
    assert not [f for f in SRC.rglob("*") if f.suffix in (".py", ".pyi", ".yaml") and "toy" in f.read_text().lower()]
