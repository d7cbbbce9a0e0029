"""One image, from a file or from bytes: read whole and of a bounded size, or one sentence that says why not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from offramp.errors import DataError

MAX_PIXELS = 178_956_970
"""The pixels of the largest image that is read: where Pillow stops too, suspecting a decompression bomb."""
MAX_ASPECT = 1000
"""How many times its shorter side the longer one may be. The shorter side is resized to what a model wants, and the
other with it, so a line of a few thousand pixels would ask for gigabytes."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")
"""The formats that are read. Pillow knows more; one of them, EPS, would start another program."""


def open_image(file: str | BinaryIO, what: str | None = None) -> Image.Image:
    """The image in a file, decoded; the first, where there are several.

    Pillow warns of damage that it can read past (a broken tag beside whole pixels, a palette's odd transparency); such
    an image is read, and nothing is said.

    Args:
        file: a path, or a file that is open.
        what: what to call it in a sentence; the path if not given.

    Raises:
        DataError: a file that is missing, damaged, no image, or one past ``MAX_PIXELS`` or ``MAX_ASPECT``.
    """
    what = str(file) if what is None else what
    with reading(what), Image.open(file, formats=FORMATS) as image:
        check_size(*image.size, what)
        image.load()
    if image.mode == "LAB":  # a TIFF's; Pillow makes no other of it
        raise DataError(f"{what} has its colours in CIELAB, which are not read: save it in RGB")
    return image


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Inside, no warning gets out, and whatever goes wrong is one ``DataError`` that names what was read."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{what} is no image") from None
    except Exception as error:  # a damaged file makes a decoder raise whatever it stumbles over
        raise DataError(f"{what} could not be read as an image: {reason(error)}") from error


def check_size(width: int, height: int, what: str) -> None:
    """Raise ``DataError`` for an image that holds nothing, or is past a limit."""
    if not width or not height:
        raise DataError(f"{what} has no pixels: it is {width} × {height}")
    if width * height > MAX_PIXELS:
        raise DataError(f"{what} is {width} × {height}; images of up to {MAX_PIXELS // 10**6} megapixels are read")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{what} is {width} × {height}, one side more than {MAX_ASPECT} times the other")


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image in Pillow's mode ``L`` or ``RGB``."""
    if image.mode == mode:
        return image
    with warnings.catch_warnings(action="ignore"):
        return image.convert(mode)


def reason(error: Exception) -> str:
    """What an error of somebody else's says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
