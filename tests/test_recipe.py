"""Recipes: every fault at once."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import offramp
from offramp.data import Splits
from offramp.data.samples import from_pixels
from offramp.errors import UsageError
from offramp.pipeline import build_model
from offramp.recipe import check_recipe, read_recipe
from offramp.registry import OBJECTIVES

GOOD = {
    "name": "x",
    "data": {"source": "digits"},
    "backbone": {"name": "vit_tiny_patch16_224"},
    "exits": [{"after": 2}],
}
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("file", sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("src/offramp/cli/*.yaml")]))
def test_recipes_of_the_project_are_valid(file):
    assert read_recipe(file).exits


def test_defaults():
    recipe = check_recipe(GOOD)
    assert recipe.objective.name == "joint"
    assert recipe.goal.max_drop == 0.005


def test_all_faults_are_named_at_once_with_the_nearest_match():
    bad = {
        **GOOD,
        "backbone": {"name": "vit_tiny_patch16_225"},
        "exits": [{"after": 0, "head": "linaer"}, {"after": 2, "haed": "mlp"}],
        "objective": {"name": "jiont"},
        "training": {"epoch": 3, "learning_rate": -1},
        "goal": {"max_drop": 0.1, "target_speedup": 2},
    }
    with pytest.raises(UsageError) as caught:
        check_recipe(bad)
    message = str(caught.value)
    for part in (
        "8 faults",
        "'vit_tiny_patch16_224'",
        "exits.0.after",
        "did you mean 'linear'",
        "did you mean 'head'",
        "did you mean 'joint'",
        "did you mean 'epochs'",
        "training.learning_rate",
        "goal: give exactly one",
    ):
        assert part in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "name: !!python/object/apply:os.getcwd []"])
def test_what_is_no_recipe(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"r\.yaml"):
        read_recipe(file)


def test_a_missing_file():
    with pytest.raises(UsageError, match="could not be read"):
        read_recipe("nowhere.yaml")


BOMB = "a: &a [1, 2]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrst"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 10000 settings"),
        ("a: &a [*a]", "more than 10000 settings"),
        ("a: " + "[" * 20_000, "could not be read"),
        ("seed: " + "9" * 10_000, "could not be read"),
        ("a: \x00", "could not be read"),
        ("a: !!python/object/apply:os.system [ls]", "could not be read"),
    ],
)
def test_a_recipe_can_ask_for_no_more_than_it_says(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.slow
@pytest.mark.slowest
@pytest.mark.parametrize("file", sorted(ROOT.glob("recipes/imagenet*.yaml")), ids=lambda file: file.stem)
def test_recipes_for_pretrained_networks_take_a_step(file, tmp_path):
    """Their networks at full size, without the weights that timm would download, on noise."""
    recipe = read_recipe(file)
    backbone = recipe.backbone.model_copy(update={"pretrained": False})
    pixels = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), dtype=np.uint8)
    samples = from_pixels(pixels, np.array([0, 1]))
    torch.manual_seed(0)
    model = build_model(recipe.model_copy(update={"backbone": backbone}), Splits({"train": samples}, ("a", "b")))
    grids = [(grid, grid) for grid in recipe.tails or [14]]
    assert [path.taps[0].grid for path in model.paths] == grids
    objective = OBJECTIVES.resolve(recipe.objective.name)(**recipe.objective.options)
    settings = {**recipe.training.model_dump(), "epochs": 2, "batch_size": 2, "precision": "fp32", "workers": 0}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    offramp.train(model, samples, objective, folder=tmp_path / "run", device="cpu", **settings)
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    learns = {"mt-vit": {"backbone", "cheaper", "heads", "router"}, "fine-tune": {"backbone", "heads"}}
    assert moved == learns.get(recipe.objective.name, {"heads"})
