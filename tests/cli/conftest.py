"""A small trained model, and the command line."""

import numpy as np
import pytest
import yaml
from helpers import RECIPE, run_cli
from PIL import Image


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A recipe file and the model that it trains."""
    from offramp.pipeline import train_recipe
    from offramp.recipe import read_recipe

    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    train_recipe(read_recipe(folder / "recipe.yaml"), folder / "model", device="cpu")
    return folder


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, mode in enumerate(("L", "RGB", "RGBA", "P")):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 30), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i}.png")
    return folder
