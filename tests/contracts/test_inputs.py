"""Every input of the table: from a file to a tensor, and to JSON and back."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from offramp.inputs import ImageInput, LogMelInput, PairInput, PointsInput
from offramp.registry import INPUTS
from offramp.testing import check_input


def image(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(path)


def sound(path):
    """Two channels at 22 kHz, a little shorter than a window of half a second."""
    kind = {"subtype": "PCM_16"} if path.suffix == ".wav" else {}
    noise = np.random.default_rng(0).normal(0, 0.1, (10_000, 2))
    soundfile.write(path, noise, 22_050, **kind)


EXAMPLES = {
    "image": [
        (ImageInput((3, 24, 24), crop_pct=0.9), "a.png", image),
        (ImageInput((1, 16, 20), mean=(0.5,), std=(0.5,)), "a.jpg", image),
    ],
    "points": [
        (PointsInput((3, 24, 32)), "a.png", image),
        (PointsInput((1, 16, 20), mean=(0.5,), std=(0.5,), cell=4, spread=1.5), "a.jpg", image),
    ],
    "log-mel": [
        (LogMelInput((3, 32, 40), 8_000, 0.5, 256), "a.wav", sound),
        (LogMelInput((1, 20, 51), 16_000, 0.4, 400, 50.0, 7_000.0, -4.0, 2.0), "a.flac", sound),
        (LogMelInput((1, 16, 1), 16_000, 0.4), "a.ogg", sound),
    ],
    "pair": [
        (PairInput(ImageInput((3, 24, 24), crop_pct=0.9), LogMelInput((1, 32, 40), 8_000, 0.5, 256)), "b.png", image),
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
