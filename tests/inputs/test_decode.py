"""One image: decoded whole, in silence, or one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers import tiny_model
from PIL import Image

from offramp import DataError
from offramp.inputs import ImageInput
from offramp.inputs._decode import FORMATS, MAX_PIXELS, open_image

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A grey PNG of that size, as far as its header says."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 9) + b"IDAT"


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_large_photograph_is_read_without_a_warning():
    content = saved(Image.new("L", (12_000, 8_000), 7), "PNG", compress_level=1)
    assert open_image(io.BytesIO(content)).getextrema() == (7, 7)


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_past_the_limit_whatever_pillow_was_told(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    height = MAX_PIXELS // 10_000
    with pytest.raises(DataError, match=r"^x\.png could not be read as an image: image file is truncated"):
        open_image(io.BytesIO(png_header(10_000, height)), "x.png")
    with pytest.raises(DataError, match=r"^x\.png .*(of up to 178 megapixels|exceeds limit of 178956970 pixels)"):
        open_image(io.BytesIO(png_header(10_000, height + 1)), "x.png")


def test_a_line_of_pixels_that_resizing_would_make_gigabytes_of():
    for size in ((1, 60_000), (60_000, 1)):
        content = saved(Image.new("L", size), "PNG")
        with pytest.raises(DataError, match="one side more than 1000 times the other"):
            open_image(io.BytesIO(content), "line.png")
    assert open_image(io.BytesIO(saved(Image.new("L", (2, 2000)), "PNG"))).size == (2, 2000)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}], ids=["plain", "lzw"])
def test_a_tiff_that_is_cut_anywhere(options):
    content = saved(Image.fromarray(PIXELS), "TIFF", **options)
    endings = set()
    for end in range(0, len(content), 7):
        try:
            endings.add(open_image(io.BytesIO(content[:end])).size)
        except DataError as error:
            endings.add("\n" in str(error))
    assert False in endings
    assert True not in endings


def test_a_jpeg_with_a_broken_exif_is_an_image():
    content = saved(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x03\0\x12\x01\x03")
    assert open_image(io.BytesIO(content)).size == (24, 20)


def test_a_palette_with_transparency_of_its_own():
    image = Image.fromarray(PIXELS[..., 0]).convert("P")
    content = saved(image, "PNG", transparency=bytes([0, 128, 255]))
    read = open_image(io.BytesIO(content))
    assert isinstance(read.info["transparency"], bytes)  # what Pillow warns of
    assert tiny_model().input.transform()(read).shape == (1, 16, 16)
    assert ImageInput((3, 16, 16)).raw(read).shape == (1, 20, 24, 3)


def test_no_other_program_is_started():
    content = saved(Image.fromarray(PIXELS), "EPS")
    with pytest.raises(DataError, match=r"^x\.jpg is no image$"):
        open_image(io.BytesIO(content), "x.jpg")


def test_colours_that_pillow_makes_no_others_of():
    content = saved(Image.new("LAB", (8, 8)), "TIFF")
    with pytest.raises(DataError, match=r"x\.tif has its colours in CIELAB"):
        open_image(io.BytesIO(content), "x.tif")


def test_every_format_is_one_that_pillow_opens():
    Image.init()
    assert set(FORMATS) <= Image.OPEN.keys()
    for kind in set(FORMATS) & Image.SAVE.keys():
        assert open_image(io.BytesIO(saved(Image.fromarray(PIXELS), kind))).size == (24, 20)
