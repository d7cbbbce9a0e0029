"""Every input of the table: from a file to a tensor, and to JSON and back."""

import numpy as np
import pytest
from PIL import Image

from offramp.inputs import ImageInput
from offramp.registry import INPUTS
from offramp.testing import check_input


def image(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(path)


EXAMPLES = {
    "image": [
        (ImageInput((3, 24, 24), crop_pct=0.9), "a.png", image),
        (ImageInput((1, 16, 20), mean=(0.5,), std=(0.5,)), "a.jpg", image),
    ],
}


def test_every_input_has_an_example():
    assert EXAMPLES.keys() == INPUTS.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_input(name, tmp_path):
    (tmp_path / "notes.txt").write_text("no sample")
    for given, file, write in EXAMPLES[name]:
        write(tmp_path / file)
        check_input(given, tmp_path / file, tmp_path / "notes.txt")
