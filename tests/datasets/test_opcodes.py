"""Photosites that a DNG itself calls defective, and what else it asks for."""

import struct

import numpy as np
import pytest

import lowlight_kedro as ll
from lowlight_kedro.api import Settings
from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.opcodes import bad_pixels_list, told_by
from lowlight_kedro.datasets.tags import OPCODE_LISTS, Tags
from lowlight_kedro.evaluation.page_facts import warnings
from lowlight_kedro.restoration.settings import Probing
from lowlight_kedro.sensor.frame import crop
from tests.conftest import make_frame

MOSAIC = np.arange(24 * 30, dtype=np.uint16).reshape(24, 30)


def a_list(*opcodes):
    """Of (number, parameters)."""
    parts = [struct.pack(">4I", number, 0x01030000, 0, len(data)) + data for number, data in opcodes]
    return struct.pack(">I", len(parts)) + b"".join(parts)


def bad(points=(), rectangles=()):
    numbers = [0, len(points), len(rectangles), *np.ravel(points).tolist(), *np.ravel(rectangles).tolist()]
    return struct.pack(f">{len(numbers)}I", *map(int, numbers))


def told(first=b"", second=b"", third=b"", top=0, left=0):
    lists = {tag: tuple(data) for tag, data in zip(OPCODE_LISTS, (first, second, third), strict=True) if data}
    return told_by(Tags((lists,)), MOSAIC, top, left)


@pytest.mark.parametrize("border", [(0, 0, 0, 0), (4, 6, 2, 8), (3, 5, 2, 8)])
def test_a_list_of_bad_pixels_comes_back_from_a_file_and_counts_as_not_measured(tmp_path, rng, border):
    frame = make_frame(rng, shape=(64, 80))
    defects = np.zeros((64, 80), bool)
    defects[rng.integers(64, size=9), rng.integers(80, size=9)] = True
    write_dng(tmp_path / "a.dng", frame.__class__(**vars(frame) | {"defects": defects}), border=border)
    read = read_frame(tmp_path / "a.dng")
    defects = defects[-read.shape[0] :, -read.shape[1] :]  # LibRaw leaves out a row and a column of an area that begins at an odd place
    np.testing.assert_array_equal(read.defects, defects)
    assert read.undone == ()
    np.testing.assert_array_equal(crop(read, 8, 4, 32, 48).defects, defects[8:40, 4:52])

    quick = Settings(probing=Probing(probes=0), defects=False)
    spoilt = frame.__class__(**vars(read) | {"mosaic_dn": np.where(defects, 900, read.mosaic_dn).astype(np.uint16)})
    clean, heard = (ll.restore(one, ratio=2, gain=1e-4, read_noise=1e-3, settings=quick) for one in (read, spoilt))
    assert heard.record["defects"] == defects.sum()
    np.testing.assert_allclose(heard.light, clean.light, atol=1e-4)  # whatever a site shows that was not measured


def test_points_and_rectangles_count_from_the_corner_of_the_image_and_may_lie_outside():
    found, undone = told(a_list((5, bad([(5, 7), (1, 1), (400, 2)], [(6, 8, 8, 11), (0, 0, 3, 3)]))), top=2, left=3)
    expected = np.zeros(MOSAIC.shape, bool)
    expected[3, 4] = expected[4:6, 5:8] = expected[0, 0] = False
    expected[3, 4] = True
    expected[4:6, 5:8] = True
    np.testing.assert_array_equal(found[1:], expected[1:])
    assert not found[0, 1:].any()  # of the rectangle that ends at row 3, column 3 nothing but the corner is visible
    assert undone == ()


def test_a_constant_marks_the_sites_that_hold_it_and_no_opcode_is_no_defect():
    found, _ = told(a_list((4, struct.pack(">2I", 33, 0))))
    assert np.argwhere(found).tolist() == [[1, 3]]
    assert told() == (None, ())


def test_what_is_not_done_is_named_once_and_told_on_the_page():
    found, undone = told(a_list((12, b"")), a_list((9, b"1234"), (9, b"5678")), a_list((1, b""), (99, b"")))
    assert found is None
    assert undone == ("ScalePerRow not done", "GainMap not done", "WarpRectilinear not done", "opcode 99 not done")
    assert "The file asks for more than is done here: GainMap not done." in " ".join(warnings({"notes": ["GainMap not done"]}))


@pytest.mark.parametrize("data", [
    b"\0\0", a_list((5, bad([(1, 2)])))[:-3], struct.pack(">I", 5), a_list((5, b"1234")), a_list((5, struct.pack(">3I", 0, 2**31, 7))),
])  # fmt: skip
def test_a_torn_list_is_told_and_the_sites_before_are_kept(data):
    found, undone = told(data)
    assert found is None
    assert undone[0].startswith("OpcodeList1 torn: ")
    kept, _ = told(a_list((5, bad([(2, 2)])), (5, b"12")))
    assert np.argwhere(kept).tolist() == [[2, 2]]


def test_the_list_that_is_written_is_the_one_that_is_read():
    defects = np.zeros(MOSAIC.shape, bool)
    defects[[3, 5], [7, 29]] = True
    found, _ = told(bad_pixels_list(defects, 10, 20), top=10, left=20)
    np.testing.assert_array_equal(found, defects)
