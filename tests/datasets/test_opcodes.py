"""What a DNG asks for: photosites that it calls defective, gains of others, corrections of the lens, and what is not done."""

import struct

import numpy as np
import pytest
import tifffile

import lowlight_kedro as ll
from lowlight_kedro.api import Settings
from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.linear_dng import LinearPicture, write_linear_dng
from lowlight_kedro.datasets.opcodes import Area, bad_pixels_list, gain_maps, heard_of
from lowlight_kedro.datasets.tags import MAX_BYTES, OPCODE_LISTS, Tags, read_tags
from lowlight_kedro.evaluation.page_facts import warnings
from lowlight_kedro.restoration.settings import Probing, Structure
from lowlight_kedro.sensor.cfa import XTRANS
from lowlight_kedro.sensor.demosaic import demosaic
from lowlight_kedro.sensor.demosaic.interpolation import bilinear
from lowlight_kedro.sensor.frame import LensCorrections, crop
from tests.conftest import make_frame

MOSAIC = np.arange(24 * 30, dtype=np.uint16).reshape(24, 30)


def a_list(*opcodes):
    """Of (number, parameters)."""
    parts = [struct.pack(">4I", number, 0x01030000, 0, len(data)) + data for number, data in opcodes]
    return struct.pack(">I", len(parts)) + b"".join(parts)


def bad(points=(), rectangles=()):
    numbers = [0, len(points), len(rectangles), *np.ravel(points).tolist(), *np.ravel(rectangles).tolist()]
    return struct.pack(f">{len(numbers)}I", *map(int, numbers))


def heard(first=b"", second=b"", third=b"", top=0, left=0, down=0, right=0, size=MOSAIC.shape, mosaic=MOSAIC):
    lists = {tag: tuple(data) for tag, data in zip(OPCODE_LISTS, (first, second, third), strict=True) if data}
    return heard_of(Tags((lists,)), mosaic, Area(top, left, down, right, size))


def told(*lists, **where):
    found = heard(*lists, **where)
    return found.defects, tuple(found.undone)


def gain_map(points, area=(0, 0, *MOSAIC.shape), planes=(0, 1), pitch=(1, 1), spacing=None, origin=(0.0, 0.0)):
    """A GainMap of points (down, right, planes)."""
    down, right, deep = np.shape(points)
    spacing = spacing or (1 / max(down - 1, 1), 1 / max(right - 1, 1))
    return struct.pack(">10I4dI", *area, *planes, *pitch, down, right, *spacing, *origin, deep) + np.asarray(points, ">f4").tobytes()


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

    quick = Settings(probing=Probing(probes=0), structure=Structure(defects=False))
    spoilt = frame.__class__(**vars(read) | {"mosaic_dn": np.where(defects, 900, read.mosaic_dn).astype(np.uint16)})
    clean, found = (ll.restore(one, ratio=2, gain=1e-4, read_noise=1e-3, settings=quick) for one in (read, spoilt))
    assert found.record["defects"] == defects.sum()
    np.testing.assert_allclose(found.light, clean.light, atol=1e-4)  # whatever a site shows that was not measured


def test_points_and_rectangles_count_from_the_corner_of_the_image_and_may_lie_outside():
    found, undone = told(a_list((5, bad([(5, 7), (1, 1), (400, 2)], [(6, 8, 8, 11), (0, 0, 3, 3)]))), top=2, left=3)
    expected = np.zeros(MOSAIC.shape, bool)
    expected[3, 4] = expected[4:6, 5:8] = True  # of the rectangle that ends at row 3, column 3 nothing is visible
    np.testing.assert_array_equal(found, expected)
    assert undone == ()


def test_a_constant_marks_the_sites_that_hold_it_and_no_opcode_is_no_defect():
    found, _ = told(a_list((4, struct.pack(">2I", 33, 0))))
    assert np.argwhere(found).tolist() == [[1, 3]]
    assert told() == (None, ())


def test_what_is_not_done_is_named_once_and_told_on_the_page():
    found, undone = told(a_list((12, b""), (9, b"")), a_list((8, b"1234"), (8, b"5678"), (98, b"")))
    assert found is None
    assert undone == ("ScalePerRow not done", "GainMap not done", "MapPolynomial not done", "opcode 98 not done")
    assert "The file asks for more than is done here: GainMap not done." in " ".join(warnings({"notes": ["GainMap not done"]}))


@pytest.mark.parametrize("pitch", [(1, 1), (2, 3)])
def test_a_gain_map_is_bilinear_between_points_in_fractions_of_the_active_area(rng, pitch):
    """Against SciPy's interpolator; LibRaw shows less than the active area here."""
    from scipy.interpolate import RegularGridInterpolator

    size, (down, right), spacing, origin = (30, 40), (3, 5), (0.3, 0.22), (0.1, -0.05)
    points, rest = rng.uniform(1, 3, (4, 6)), rng.uniform(1, 3, (4, 6))
    data = a_list((9, gain_map(points[..., None], (4, 6, 28, 33), pitch=pitch, spacing=spacing, origin=origin)),
                  (9, gain_map(rest[..., None], (0, 0, 30, 40), spacing=spacing, origin=origin)))  # fmt: skip
    found = heard(b"", data, down=down, right=right, size=size)
    assert not found.undone
    grid = [at + step * np.arange(count) for at, step, count in zip(origin, spacing, points.shape, strict=True)]
    rows, columns = np.mgrid[0:30, 0:40]
    places = [np.clip((lines + 0.5) / side, one[0], one[-1]) for lines, side, one in zip((rows, columns), size, grid, strict=True)]
    first, second = (RegularGridInterpolator(grid, values)(np.stack(places, -1)) for values in (points, rest))
    here = (rows >= 4) & (rows < 28) & (columns >= 6) & (columns < 33) & ((rows - 4) % pitch[0] == 0) & ((columns - 6) % pitch[1] == 0)
    expected = (np.where(here, first, 1) * second)[down : down + MOSAIC.shape[0], right : right + MOSAIC.shape[1]]
    np.testing.assert_allclose(found.shading, expected, rtol=1e-6)


def test_planes_of_three_values_a_pixel_have_maps_of_their_own():
    points = np.float32([[[1.5, 2.0]]])
    shading = heard(b"", a_list((9, gain_map(points, planes=(1, 2)))), mosaic=np.stack([MOSAIC] * 3)).shading
    np.testing.assert_array_equal(shading[:, 5, 5], [1, 1.5, 2])
    shading = heard(b"", a_list((9, gain_map(points[..., :1], planes=(0, 3)))), mosaic=np.stack([MOSAIC] * 3)).shading
    np.testing.assert_array_equal(shading[:, 5, 5], [1.5, 1.5, 1.5])  # the last plane of a map goes on


@pytest.mark.parametrize(("data", "why"), [
    (gain_map(np.ones((2, 2, 1)))[:-1], "GainMap tells of 2 x 2 points of 1 planes, and holds 3 values"),
    (gain_map(np.ones((2, 2, 1)))[:60], "GainMap is cut short"),
    (gain_map(np.full((2, 2, 1), np.nan)), "GainMap holds gains that no lens needs"),
    (gain_map(np.zeros((2, 2, 1))), "GainMap holds gains that no lens needs"),
    (gain_map(np.ones((2, 2, 1)), pitch=(0, 1)), "that is not above 0"),
    (gain_map(np.ones((2, 2, 1)), spacing=(0.0, 1.0)), "that is not above 0"),
    (gain_map(np.ones((2, 2, 1)), area=(100, 0, 200, 9)), "GainMap for rows 100 to 200, columns 0 to 9, plane 0 lies outside"),
    (gain_map(np.ones((2, 2, 1)), planes=(1, 1)), "plane 1 lies outside"),
    (gain_map(np.ones((0, 2, 1))), "GainMap tells of 0 x 2 points"),
])  # fmt: skip
def test_of_a_list_with_one_bad_gain_map_none_is_done(data, why):
    """What holds for one colour of four would be a cast."""
    found = heard(b"", a_list((9, gain_map(np.full((2, 2, 1), 2.0))), (9, data)))
    assert found.shading is None
    (told,) = found.undone
    assert told.startswith("OpcodeList2 unusable: ")
    assert why in told
    assert heard(b"", a_list((9, gain_map(np.full((2, 2, 1), 2.0))))).shading.min() == 2


@pytest.mark.parametrize("cfa", [make_frame.__defaults__[0], XTRANS])
def test_gains_come_back_from_a_file_and_the_light_is_what_they_make_of_the_signal(tmp_path, rng, cfa):
    """Light without shading, and what a lens leaves of it with the gains that bring it back, are restored alike where noise is none."""
    frame = make_frame(rng, cfa, shape=(48, 60), light=0.1)
    rows, columns = np.mgrid[-1:1:48j, -1:1:60j]
    shading = (1 + rows**2 + columns**2 * np.tile([0.5, 1.0], 30)).astype(np.float32)  # not the same for all colours
    signal = (frame.mosaic_dn - 512.0) / shading
    dark = frame.__class__(**vars(frame) | {"mosaic_dn": np.rint(512 + signal).astype(np.uint16), "shading": shading})
    write_dng(tmp_path / "a.dng", dark, border=(2, 6, 4, 0))
    read = read_frame(tmp_path / "a.dng", "tag")
    np.testing.assert_allclose(read.shading, shading, rtol=1e-6)
    assert read.undone == ()
    step = 1.2 / 15871 * shading.max() * 2  # of rounding, brightened and balanced
    np.testing.assert_allclose(demosaic(read, bilinear), demosaic(frame, bilinear), atol=step)
    np.testing.assert_array_equal(crop(read, 6, 12, 24, 30).shading, read.shading[6:30, 12:42])
    if cfa is XTRANS:
        return
    quick = Settings(probing=Probing(probes=0), structure=Structure(defects=False))
    even, shaded = (ll.restore(one, ratio=2, gain=1e-8, read_noise=1e-5, settings=quick).light for one in (frame, read))
    np.testing.assert_allclose(shaded, even, atol=10 * step)
    told = ll.restore(read, gain=1e-4, read_noise=1e-3, settings=quick).record["exposure_ratio"]
    assert told == pytest.approx(0.1 / ((frame.mosaic_dn - 512) / 15871).mean(), rel=0.01)


def test_corrections_of_the_lens_are_carried_into_the_files_for_editors_byte_by_byte(tmp_path, rng):
    lens = struct.pack(">I", 2) + struct.pack(">4I", 1, 0x01030000, 1, 3) + b"abc" + struct.pack(">4I", 14, 0x01060000, 0, 1) + b"d"
    frame = make_frame(rng, shape=(48, 60))
    write_dng(tmp_path / "a.dng", frame.__class__(**vars(frame) | {"lens": heard(b"", b"", lens).lens}))
    read = read_frame(tmp_path / "a.dng")
    assert (read.lens.names, read.lens.version, read.undone) == (("WarpRectilinear", "WarpRectilinear2"), bytes((1, 6, 0, 0)), ())
    write_linear_dng(tmp_path / "b.dng", LinearPicture(rng.random((3, 48, 60), np.float32), read, 1.0), headroom=8)
    with tifffile.TiffFile(tmp_path / "b.dng") as file:
        versions = [file.pages.first.tags[number].value for number in (50706, 50707)]
    assert bytes(read_tags(tmp_path / "b.dng").find(OPCODE_LISTS[2])) == lens
    assert versions == [bytes((1, 6, 0, 0))] * 2  # a reader must know WarpRectilinear2, which is not optional
    part = crop(read, 0, 0, 32, 32)
    assert part.lens is None
    assert part.undone == ("WarpRectilinear not done", "WarpRectilinear2 not done")
    torn = heard(b"", b"", lens[:-1])
    assert torn.lens is None
    assert tuple(torn.undone) == ("OpcodeList3 unusable: its number 2 of 2 is cut short",)


def test_a_list_that_is_too_long_to_be_read_is_told(tmp_path, rng):
    frame = make_frame(rng, shape=(48, 60))
    write_dng(tmp_path / "a.dng", frame.__class__(**vars(frame) | {"lens": LensCorrections(("GainMap",), bytes(MAX_BYTES + 1), bytes(4))}))
    read = read_frame(tmp_path / "a.dng")
    assert read.lens is None
    assert read.undone == ("OpcodeList3 unusable: it has more than 1048576 bytes",)
    assert "more than is done here: OpcodeList3 unusable" in " ".join(warnings({"notes": read.undone}))


@pytest.mark.parametrize("data", [
    b"\0\0", a_list((5, bad([(1, 2)])))[:-3], struct.pack(">I", 5), a_list((5, b"1234")), a_list((5, struct.pack(">3I", 0, 2**31, 7))),
])  # fmt: skip
def test_a_torn_list_is_told_and_the_sites_before_are_kept(data):
    found, undone = told(data)
    assert found is None
    assert undone[0].startswith("OpcodeList1 unusable: ")
    kept, _ = told(a_list((5, bad([(2, 2)])), (5, b"12")))
    assert np.argwhere(kept).tolist() == [[2, 2]]


def test_the_list_that_is_written_is_the_one_that_is_read():
    defects = np.zeros(MOSAIC.shape, bool)
    defects[[3, 5], [7, 29]] = True
    found, _ = told(bad_pixels_list(defects, 10, 20), top=10, left=20)
    np.testing.assert_array_equal(found, defects)
    shading = np.linspace(1, 2, MOSAIC.size, dtype=np.float32).reshape(MOSAIC.shape)
    np.testing.assert_allclose(heard(b"", gain_maps(shading, XTRANS)).shading, shading, rtol=1e-6)
