"""Recipes: every fault at once."""

from itertools import pairwise
from pathlib import Path

import pytest

from offramp.errors import UsageError
from offramp.recipe import check_recipe, read_recipe

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
