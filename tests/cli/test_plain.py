"""offramp train without a recipe: it writes the one that it uses."""

import json
import shlex

import pytest
import timm
import torch
import yaml
from helpers import noise_file
from safetensors.torch import save_file

from offramp.artifact import load_artifact

pytestmark = pytest.mark.slow

BACKBONE = "test_vit"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    save_file(timm.create_model(BACKBONE).state_dict(), folder / "w.safetensors")
    return noise_file(folder / "d.npz", 32, 64, 40, 40), folder / "w.safetensors"


def test_a_backbone_that_has_learned_is_fine_tuned(data, cli, tmp_path):
    source, weights = data
    out = tmp_path / "deep" / "m"
    words = ["train", source, "--backbone", BACKBONE, "--checkpoint", str(weights), "--exits", "4,2", "--epochs", "2"]
    words += ["--out", str(out), "--device", "cpu", "--json"]
    code, answer, err = cli(*words)
    assert code == 0, err
    assert json.loads(answer)["samples"] == {"train": 64, "validation": 40, "test": 40}
    recipe = yaml.safe_load(out.with_name("m.yaml").read_text())
    assert recipe["objective"] == {"name": "fine-tune"}
    assert recipe["exits"] == [{"after": 2, "head": "lph"}, {"after": 4, "head": "gah"}]
    model = load_artifact(out).model
    assert [e.after for e in model.exits] == [2, 4]
    first = out.with_name("m.run") / "stage-1" / "log.jsonl"
    assert first.exists(), "the backbone first, then heads"
    kept = out.with_name("m.yaml").read_text()
    code, again, _ = cli(*words)
    assert (code, again) == (0, answer), "the same words go on with the same run"
    headline = kept.splitlines()[0].removeprefix("# again: offramp ")
    code, again, _ = cli(*shlex.split(headline), "--device", "cpu", "--json")
    assert (code, again) == (0, answer), "and so does the recipe that was written"
    words[words.index("4,2")] = "2"
    code, _, err = cli(*words)
    assert code == 2
    assert "m.yaml is there and says something else" in " ".join(err.split())
    assert out.with_name("m.yaml").read_text() == kept


def test_one_from_random_weights_learns_with_its_exits(data, cli, tmp_path):
    words = ["--backbone", BACKBONE, "--exits", "3", "--epochs", "1", "--out", tmp_path / "m", "--device", "cpu"]
    code, _, err = cli("train", data[0], *words)
    assert code == 2, "64 images make no batch of 128"
    assert "a batch of 128 from 64 samples" in err
    recipe = yaml.safe_load((tmp_path / "m.yaml").read_text())
    assert recipe["objective"]["name"] == "self-distillation"
    assert not recipe["backbone"]["pretrained"]
    words[words.index("3")] = "7"  # nothing has begun: the words may change
    code, _, err = cli("train", data[0], *words)
    assert code == 2
    assert "this backbone has 6 blocks" in err


WRONG = {
    "no exits": (["DATA", "--backbone", BACKBONE], "name the blocks"),
    "words": (["DATA", "--backbone", BACKBONE, "--exits", "2;4"], "numbers of blocks with commas"),
    "too deep": (["DATA", "--backbone", BACKBONE, "--exits", "99"], "this backbone has"),
    "below 1": (["DATA", "--backbone", BACKBONE, "--exits", "0"], "exits.0.after"),
    "unknown": (["DATA", "--backbone", "test_vitt", "--exits", "2"], "test_vit"),
    "a recipe's own": (["r.yaml", "--pretrained"], "go with --backbone"),
    "exits of a recipe": (["r.yaml", "--exits", "2"], "go with --backbone"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case, data, cli, tmp_path):
    arguments, sentence = WRONG[case]
    words = [data[0] if a == "DATA" else a for a in arguments]
    code, out, err = cli("train", *words, "--out", tmp_path / "m", "--device", "cpu")
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.split())
    assert not (tmp_path / "m").exists()
