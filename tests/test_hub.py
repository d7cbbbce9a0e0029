"""Artifacts on the hub, with a local folder in its place: nothing here has a network."""

import json
import shutil
from pathlib import Path

import huggingface_hub as hub
import pytest
import torch
from helpers import images, random_table, run_cli, simple_costs, tiny_model
from huggingface_hub.errors import HFValidationError

import offramp
from offramp import ArtifactError, DataError, UsageError
from offramp.policies.threshold import Threshold


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A hub in a folder: what is uploaded there can be fetched, with links as in the hub's cache."""
    place = tmp_path / "hub"

    class Api:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, repo_id, private, exist_ok):
            if repo_id.count("/") > 1:
                raise HFValidationError("Repo id must be in the form 'repo_name' or 'namespace/repo_name'")
            (place / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            (place / repo_id / "private").write_text(str(private))

        def upload_folder(self, repo_id, folder_path, commit_message):
            if self.token == "wrong":
                raise PermissionError("403 Forbidden")
            shutil.copytree(folder_path, place / repo_id, dirs_exist_ok=True)
            return f"there/{repo_id}"

    def snapshot_download(repo_id, revision=None, allow_patterns=None):
        if not (place / repo_id).is_dir() or revision == "none":
            raise OSError("404 Not Found")
        cache = tmp_path / "cache" / repo_id
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        for file in (place / repo_id).iterdir():
            if file.name in allow_patterns:
                (cache / file.name).symlink_to(file)
        return str(cache)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    return place


def test_what_is_pushed_is_what_is_loaded(remote):
    model, policy = tiny_model(), Threshold((0.3, 0.5, 0.7))
    (remote / "me" / "mine").mkdir(parents=True)
    (remote / "me" / "mine" / "LICENSE").write_text("theirs")
    assert offramp.push(model, "me/mine", policy, random_table(), simple_costs()) == "there/me/mine"
    again, rule = offramp.load("hf-hub:me/mine")
    x = images(3)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(x), again(x), strict=True))
    assert rule == policy
    assert (remote / "me" / "mine" / "LICENSE").read_text() == "theirs"
    readme = (remote / "me" / "mine" / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: offramp\n")
    assert "pipeline_tag: image-classification\n---\n\n# " in readme
    assert offramp.load("hf-hub:me/mine@main")[1] == policy


def test_no_answer_is_one_sentence(remote):
    for name in ("hf-hub:me/none", "hf-hub:me/mine@none"):
        with pytest.raises(ArtifactError, match=f"{name} could not be fetched: 404 Not Found"):
            offramp.load(name)
    with pytest.raises(UsageError, match="is no name of a repository"):
        offramp.push(tiny_model(), "a/b/c")
    with pytest.raises(DataError, match="me/mine could not be written: 403 Forbidden"):
        offramp.push(tiny_model(), "me/mine", token="wrong")


def test_what_was_damaged_on_the_way_is_refused(remote):
    offramp.push(tiny_model(), "me/mine")
    file = remote / "me" / "mine" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match="its checksum is another"):
        offramp.load("hf-hub:me/mine")


def test_the_command(remote, tmp_path, monkeypatch, capsys):
    offramp.save(tiny_model(), tmp_path / "m", Threshold((0.3, 0.5, 0.7)), random_table(), simple_costs())
    code, text, _ = run_cli(monkeypatch, capsys, "push", tmp_path / "m", "me/mine", "--private", "--json")
    assert code == 0
    assert json.loads(text) == {"model": str(tmp_path / "m"), "repository": "me/mine", "address": "there/me/mine"}
    assert (remote / "me" / "mine" / "private").read_text() == "True"
    monkeypatch.chdir(tmp_path)
    goal = ("calibrate", Path("hf-hub:me/mine"), "--max-drop", "50", "--json")
    code, _, said = run_cli(monkeypatch, capsys, *goal)
    assert code == 2
    assert "is on the hub, which stays as it is: say with --out where the policy goes" in said
    code, text, _ = run_cli(monkeypatch, capsys, *goal, "--out", "p.json")
    assert code == 0
    assert json.loads(text)["policy"] == "threshold"
    with pytest.raises(UsageError, match="a place on the hub"):
        offramp.save(tiny_model(), "hf-hub:me/mine")
    assert not list(tmp_path.glob("hf-hub*"))


def test_without_a_network(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match="hf-hub:nobody/nothing could not be fetched") as caught:
        offramp.load("hf-hub:nobody/nothing")
    assert "\n" not in str(caught.value)
