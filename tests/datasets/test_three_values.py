"""Raws that hold three values a pixel, as their makers write them: linear DNG like ProRAW, Nikon's small raw, Sigma's X3F. All made up."""

import struct

import numpy as np
import pytest
import tifffile
from imagecodecs import jpeg8_encode

from lowlight_kedro.datasets.decoding import read_frame, read_header
from lowlight_kedro.datasets.dng import source_colour
from lowlight_kedro.sensor.cfa import UNFILTERED
from lowlight_kedro.sensor.frame import normalise
from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65

SHAPE, TILE = (64, 96), 32
BLACK, NEUTRAL = np.array([528.25, 512, 496]).reshape(3, 1, 1), (0.5, 1.0, 0.7)
ROWS, COLUMNS = np.linspace(0.2, 1.0, SHAPE[0])[:, None], np.linspace(0.1, 0.6, SHAPE[1])
LIGHT = np.stack([np.broadcast_to(part, SHAPE) for part in (COLUMNS, ROWS, 0.3)])


def fractions(values):
    return [part for value in values for part in (round(value * 10_000), 10_000)]


def linear_dng(path, pixels, white, tags=(), compression=None):
    """What a phone writes: levels of each channel, white balance, its noise. `compression`: None, zlib, or tiles of JPEG."""
    told = [
        (50706, "B", 4, bytes((1, 4, 0, 0)), True), (50708, "s", 0, "Acme Phone", True), (50728, "2I", 3, fractions(NEUTRAL), True),
        (50721, "2i", 9, fractions((0.9, -0.3, -0.1, -0.4, 1.2, 0.2, -0.1, 0.2, 0.6)), True), (50717, "I", len(white), white, True),
        (51041, "d", 6, (2e-4, 9e-8) * 3, True), *tags,
    ]  # fmt: skip
    options = {"photometric": 34892, "planarconfig": "contig", "extratags": told, "metadata": None}
    if isinstance(compression, dict):
        corners = [(top, left) for top in range(0, SHAPE[0], TILE) for left in range(0, SHAPE[1], TILE)]
        encoded = (bytes(jpeg8_encode(pixels[y : y + TILE, x : x + TILE].copy(), **compression)) for y, x in corners)
        with tifffile.TiffWriter(path) as writer:
            writer.write(encoded, shape=pixels.shape, dtype=pixels.dtype, tile=(TILE, TILE), compression=7, **options)
    else:
        tifffile.imwrite(path, pixels, compression=compression, predictor=3 if compression else None, **options)


LOSSLESS = {"lossless": True, "predictor": 1, "bitspersample": 16, "colorspace": "rgb", "outcolorspace": "rgb"}


@pytest.mark.parametrize("compression", [None, LOSSLESS], ids=["plain", "lossless JPEG"])
@pytest.mark.parametrize("white", [(15000, 15000, 15000), (15000, 14000, 16000)])
def test_each_channel_of_a_phones_file_has_its_own_levels(tmp_path, white, compression):
    """LibRaw takes one range for all and bends the white balance instead; sites at white would not be known as such."""
    span = np.reshape(white, (3, 1, 1)) - BLACK
    pixels = np.rint(BLACK + span * LIGHT).astype(np.uint16).transpose(1, 2, 0)
    black = (50714, "2I", 3, fractions(BLACK.ravel()), True)
    linear_dng(tmp_path / "a.dng", pixels, white, [black], compression)
    frame = read_frame(tmp_path / "a.dng")
    signal = normalise(frame)
    assert (frame.cfa, frame.white_level, frame.camera) == (UNFILTERED, max(white), "Acme Phone")
    np.testing.assert_allclose(signal, LIGHT, atol=1.01 / span.min())
    assert (signal[1, -1] >= 1).all()
    assert frame.white_balance == pytest.approx((2, 1, 1 / 0.7), rel=1e-3)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_floating_point_up_to_white_is_read_and_its_noise_profile_is_not(tmp_path, kind, compression):
    linear_dng(tmp_path / "a.dng", LIGHT.transpose(1, 2, 0).astype(kind), (1,), compression=compression)
    frame = read_frame(tmp_path / "a.dng")
    np.testing.assert_allclose(normalise(frame), LIGHT, atol=5e-4)
    assert frame.noise_profile is None


def test_the_curve_of_a_lossy_file_is_done(tmp_path):
    """0.1 x + 0.9 x^2 of each channel, OpcodeList2."""
    coefficients = (0.0, 0.1, 0.9)
    curve = b"".join(
        struct.pack(">4I 4I 4I I 3d", 8, 0x01030000, 0, 60, 0, 0, *SHAPE, plane, 1, 1, 1, 2, *coefficients) for plane in range(3)
    )
    stored = np.rint(255 * (np.sqrt(0.01 + 3.6 * LIGHT) - 0.1) / 1.8).astype(np.uint8).transpose(1, 2, 0)
    curves = (51009, 7, 4 + len(curve), struct.pack(">I", 3) + curve, True)
    linear_dng(tmp_path / "a.dng", stored, (255,) * 3, [curves], {"level": 98, "colorspace": "rgb", "outcolorspace": "rgb"})
    with tifffile.TiffFile(tmp_path / "a.dng", mode="r+b") as file:
        file.pages[0].tags[259].overwrite(34892)
    frame = read_frame(tmp_path / "a.dng")
    np.testing.assert_allclose(normalise(frame), LIGHT, atol=0.012)
    assert frame.undone == ()


def small_nef(path, luma, blue, red):
    """Nikon's small raw: 12 bits of Y, Y, Cb, Cr for two pixels, in six bytes."""
    height, width = luma.shape

    def pair(first, second):
        return [first & 255, first >> 8 | (second & 15) << 4, second >> 4]

    packed = np.stack(pair(luma[:, ::2], luma[:, 1::2]) + pair(blue, red), axis=-1).astype(np.uint8)
    named = [(271, "s", 0, "NIKON CORPORATION", True), (272, "s", 0, "NIKON D810", True), (34855, "H", 1, 6400, True)]
    tifffile.imwrite(path, packed.reshape(height, 3 * width), rowsperstrip=height, metadata=None, extratags=named)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for number, value in ((256, width), (258, 12), (259, 34713), (262, 32803)):
            file.pages[0].tags[number].overwrite(value)


def test_a_small_nef_is_three_values_a_pixel_balanced_and_in_srgb(tmp_path):
    luma = np.broadcast_to(np.arange(900, 900 + 96) // 2 * 2, (64, 96))
    grey = np.full((64, 48), 2048)
    small_nef(tmp_path / "a.nef", luma, grey, grey)
    frame = read_frame(tmp_path / "a.nef")
    assert (frame.cfa, frame.shape, frame.camera, frame.iso) == (UNFILTERED, (64, 96), "NIKON D810", 6400)
    signal = normalise(frame)
    assert (np.diff(signal[:, 5, ::2]) > 0).all()
    np.testing.assert_array_equal(signal[[0, 2]], signal[[1, 1]])
    assert (frame.white_balance, frame.guessed) == ((1, 1, 1), ())
    np.testing.assert_array_equal(frame.camera_to_srgb, np.eye(3))
    (calibration,) = source_colour(frame, tmp_path / "a.nef").calibrations
    np.testing.assert_allclose(calibration.to_camera, SRGB_FROM_XYZ_D65, atol=1e-6)


def x3f(properties, jpeg=b"", image=None):
    """A Sigma file: header, properties, if any a JPEG and an image (3, H, W) of multiples of 8, and the list of them."""
    texts, places = "", b""
    for pair in properties.items():
        for word in pair:
            places += struct.pack("<I", len(texts))
            texts += word + "\0"
    told = b"SECp" + struct.pack("<5I", 0x20000, len(properties), 0, 0, len(texts)) + places + texts.encode("utf-16-le")
    sections, body = [(b"PROP", told)], b"FOVb" + struct.pack("<I", 0x20000) + bytes(32)
    if jpeg:
        sections.append((b"IMA2", b"SECi" + bytes(24) + jpeg))
    if image is not None:
        _, height, width = image.shape
        steps = np.diff(image // 8, axis=2, prepend=0) + 512  # ten bits for the difference from the left, three in a word
        words = (steps[0] | steps[1] << 10 | steps[2] << 20).astype("<u4")
        table = (8 * (np.arange(1024) - 512)).astype("<i2")
        sections.append(
            (b"IMAG", b"SECi" + struct.pack("<6I", 0x20000, 3, 6, width, height, 4 * width) + table.tobytes() + words.tobytes())
        )
    listed = b"SECd" + struct.pack("<2I", 0x20000, len(sections))
    for kind, content in sections:
        listed += struct.pack("<2I4s", len(body), len(content), kind)
        body += content
    return body + listed + struct.pack("<I", len(body))


def test_a_sigma_of_2003_is_decoded(tmp_path, rng):
    image = 8 * rng.integers(20, 400, (3, 64, 96))
    told = {"ISO": "400", "CAMMANUF": "SIGMA", "CAMMODEL": "SIGMA SD10", "SHUTTER": "0.01", "TIME": "1100000000"}
    (tmp_path / "a.x3f").write_bytes(x3f(told, image=image))
    frame = read_frame(tmp_path / "a.x3f")
    np.testing.assert_array_equal(frame.mosaic_dn, image)
    assert (frame.cfa, frame.camera, frame.iso, frame.exposure_s) == (UNFILTERED, "SIGMA SD10", 400, 0.01)
    assert "colour matrix" not in frame.guessed
    assert read_header(tmp_path / "a.x3f")["camera"] == "SIGMA SD10"
