"""Laws of every demosaicer in the table, over all Bayer phases and all shifts of X-Trans."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from skimage import data

from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, masks, sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS, demosaic, scale_of, strips
from lowlight_kedro.sensor.frame import balanced, normalise
from lowlight_kedro.sensor.render import srgb_decode
from tests.conftest import PHASES, make_frame


def shifted(cfa: Cfa, down: int, across: int) -> Cfa:
    """The pattern as seen from its site (down, across)."""
    return tuple(tuple(int(colour) for colour in row) for row in np.roll(cfa, (-down, -across), (0, 1)))


def transposed(cfa: Cfa) -> Cfa:
    return tuple(zip(*cfa, strict=True))


XTRANS_SHIFTS = [shifted(XTRANS, down, across) for down in range(6) for across in range(6)]
SOME_CFAS = [*PHASES, XTRANS, shifted(XTRANS, 1, 2), shifted(XTRANS, 4, 3)]
BAYER_ONLY = {"malvar2004"}
NOT_LINEAR = {"directional_lmmse"}
SHRINKING = {"superpixel"}
FULL_SIZE = sorted(set(DEMOSAICERS) - SHRINKING)


def cases(names, cfas):
    return [(name, cfa) for name in names for cfa in cfas if len(cfa) == 2 or name not in BAYER_ONLY]


def inside(rgb, border=12):
    return rgb[:, border:-border, border:-border]


@pytest.mark.parametrize("name", DEMOSAICERS)
def test_a_flat_colour_is_kept_to_the_border_at_odd_sizes(name):
    for index, (_, cfa) in enumerate(cases([name], [*PHASES, *XTRANS_SHIFTS])):
        shape = (13 + index % 5, 15 + index % 4)
        flat = np.broadcast_to(np.array([0.5, -0.2, 0.8], np.float32)[:, None, None], (3, *shape))
        scale = scale_of(DEMOSAICERS[name], cfa)
        out = DEMOSAICERS[name](sample(flat, cfa), cfa)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, flat[:, : shape[0] // scale, : shape[1] // scale], atol=3e-6)


@pytest.mark.parametrize(("name", "cfa"), cases(FULL_SIZE, SOME_CFAS))
def test_measured_values_stay_and_the_mosaic_is_not_changed(name, cfa, rng):
    mosaic = rng.normal(size=(25, 31)).astype(np.float32)
    before = mosaic.copy()
    out = DEMOSAICERS[name](mosaic, cfa)
    rounding = 1e-6 if name == "colour_difference" else 0  # it adds green and a difference
    np.testing.assert_allclose((out * masks(cfa, mosaic.shape)).sum(axis=0), before, rtol=0, atol=rounding)
    np.testing.assert_array_equal(mosaic, before)


def _departure_from_linearity(name, cfa, rng):
    one, other = rng.normal(size=(2, 36, 42)).astype(np.float32)
    apply = DEMOSAICERS[name]
    return np.abs(apply(one * np.float32(0.7) + other, cfa) - np.float32(0.7) * apply(one, cfa) - apply(other, cfa)).max()


@pytest.mark.parametrize(("name", "cfa"), cases(sorted(set(DEMOSAICERS) - NOT_LINEAR), SOME_CFAS))
def test_superposition_holds_for_linear_methods(name, cfa, rng):
    assert _departure_from_linearity(name, cfa, rng) < 1e-5


@pytest.mark.parametrize("name", sorted(NOT_LINEAR))
def test_superposition_would_notice(name, rng):
    assert _departure_from_linearity(name, XTRANS, rng) > 0.01


@pytest.mark.parametrize("name", DEMOSAICERS)
def test_a_shift_of_image_and_phase_shifts_the_result(name, rng):
    mosaic = rng.normal(size=(48, 54)).astype(np.float32)
    for _, cfa in cases([name], [BAYER_RGGB, XTRANS]):
        scale = scale_of(DEMOSAICERS[name], cfa)
        whole = DEMOSAICERS[name](mosaic, cfa)
        for down, across in ((scale, 0), (0, scale), (3 * scale, 5 * scale)):
            part = DEMOSAICERS[name](mosaic[down:, across:], shifted(cfa, down, across))
            same = whole[:, down // scale :, across // scale :]
            np.testing.assert_allclose(inside(part, 8 // scale), inside(same, 8 // scale), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "cfa"), cases(DEMOSAICERS, SOME_CFAS))
def test_a_transposed_mosaic_gives_the_transposed_result(name, cfa, rng):
    mosaic = rng.normal(size=(31, 43)).astype(np.float32)
    turned = DEMOSAICERS[name](np.ascontiguousarray(mosaic.T), transposed(cfa))
    np.testing.assert_allclose(turned.transpose(0, 2, 1), DEMOSAICERS[name](mosaic, cfa), atol=1e-5)


RAMP_EXACT = [*cases(FULL_SIZE, PHASES), *cases(["lmmse", "directional_lmmse"], XTRANS_SHIFTS[::5])]


@pytest.mark.parametrize(("name", "cfa"), RAMP_EXACT)
def test_a_grey_ramp_is_reproduced_inside(name, cfa):
    rows, columns = np.mgrid[0:24, 0:30].astype(np.float32)
    ramp = np.stack([0.01 * rows + 0.02 * columns] * 3)
    np.testing.assert_allclose(inside(DEMOSAICERS[name](sample(ramp, cfa), cfa), 3), inside(ramp, 3), atol=5e-6)


@pytest.mark.parametrize(("name", "cfa"), cases(FULL_SIZE, SOME_CFAS))
def test_smooth_coloured_light_is_reproduced_to_two_hundredths(name, cfa):
    rows, columns = np.mgrid[0:72, 0:80]
    waves = np.stack([np.sin((rows * a + columns * b) * 2 * np.pi / 100 + a) for a, b in ((1, 0.3), (0.5, 0.8), (-0.7, 0.7))])
    out = DEMOSAICERS[name](sample(waves.astype(np.float32), cfa), cfa)
    error = np.sqrt(np.mean((inside(out) - inside(waves)) ** 2)) / waves.std()
    assert error < 0.02


def _fringe(name, cfa, turn):
    """Largest colour that a demosaicer gives a white-balanced grey step."""
    step = np.tile((np.arange(60) > 30).astype(np.float32), (3, 60, 1))
    mosaic = sample(step.transpose(0, 2, 1) if turn else step, cfa)
    red, green, blue = inside(DEMOSAICERS[name](mosaic, cfa))
    return max(np.abs(red - green).max(), np.abs(blue - green).max())


@pytest.mark.parametrize("turn", [False, True], ids=["upright", "level"])
@pytest.mark.parametrize("cfa", SOME_CFAS[3:6])
def test_a_grey_edge_gets_less_colour_from_better_methods(cfa, turn):
    bilinear = _fringe("bilinear", cfa, turn)
    assert _fringe("lmmse", cfa, turn) < 0.5 * bilinear
    assert _fringe("directional_lmmse", cfa, turn) < 0.4 * bilinear
    if len(cfa) == 2:
        assert _fringe("malvar2004", cfa, turn) < 0.5 * bilinear


@pytest.mark.parametrize(("name", "cfa"), cases(FULL_SIZE, [BAYER_RGGB, XTRANS]))
def test_the_height_of_the_strips_does_not_change_a_bit(name, cfa, rng, monkeypatch):
    mosaic = rng.normal(size=(61, 47)).astype(np.float32)
    results = []
    for plane in (1, 47, 100, 2**15):
        monkeypatch.setattr(strips, "PLANE", plane)
        results.append(DEMOSAICERS[name](mosaic, cfa).tobytes())
    assert len(set(results)) == 1


DIGEST = """
import hashlib, numpy as np
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.demosaic import DEMOSAICERS
mosaic = np.random.default_rng(0).normal(size=(400, 611)).astype(np.float32)
for name, function in sorted(DEMOSAICERS.items()):
    for cfa in (BAYER_RGGB, XTRANS)[: 1 if name == "malvar2004" else 2]:
        print(name, len(cfa), hashlib.sha256(function(mosaic, cfa).tobytes()).hexdigest())
"""


def test_one_and_two_threads_give_the_same_bytes():
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count},
        )
        for count in "12"
    ]  # fmt: skip
    printed = [run.communicate()[0] for run in runs]
    assert printed[0].count("\n") == 2 * len(DEMOSAICERS) - len(BAYER_ONLY)
    assert printed[0] == printed[1]


def test_superpixel_is_the_mean_of_each_colour_of_each_block(rng):
    for cfa, block in ((BAYER_RGGB, 2), (shifted(XTRANS, 1, 4), 3)):
        mosaic = rng.normal(size=(26, 33)).astype(np.float32)
        out = DEMOSAICERS["superpixel"](mosaic, cfa)
        where = masks(cfa, mosaic.shape)
        for row, column in ((0, 0), (3, 5), (26 // block - 1, 33 // block - 1)):
            part = (slice(row * block, (row + 1) * block), slice(column * block, (column + 1) * block))
            wanted = [mosaic[part][where[colour][part]].mean() for colour in range(3)]
            np.testing.assert_allclose(out[:, row, column], wanted, rtol=1e-5, atol=1e-6)


def test_only_superpixel_makes_images_smaller():
    assert {name for name in DEMOSAICERS if scale_of(DEMOSAICERS[name], XTRANS) != 1} == SHRINKING
    assert scale_of(lambda mosaic, cfa: mosaic, BAYER_RGGB) == 1


def test_malvar_refuses_xtrans():
    with pytest.raises(ValueError, match="needs a 2x2 Bayer pattern"):
        DEMOSAICERS["malvar2004"](np.zeros((12, 12), np.float32), XTRANS)


@pytest.mark.parametrize("name", ["lmmse", "directional_lmmse"])
def test_a_mosaic_smaller_than_its_period_is_refused(name):
    with pytest.raises(ValueError, match="must hold a colour filter period of 6, got a side of 5"):
        DEMOSAICERS[name](np.zeros((12, 5), np.float32), XTRANS)


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
def test_errors_on_a_photograph_fall_from_bilinear_to_directional_lmmse(cfa):
    truth = srgb_decode(data.astronaut()[:192, 150:348] / 255).transpose(2, 0, 1).astype(np.float32)
    errors = {}
    for name, _ in cases(FULL_SIZE, [cfa]):
        errors[name] = np.mean((inside(DEMOSAICERS[name](sample(truth, cfa), cfa)) - inside(truth)) ** 2)
    order = ["directional_lmmse", "lmmse", "malvar2004", "colour_difference", "bilinear"]
    ordered = [errors[name] for name in order if name in errors]
    assert all(better < 0.9 * worse for better, worse in pairwise(ordered))


def test_a_frame_is_balanced_and_demosaiced(rng):
    frame = make_frame(rng)
    seen = (demosaic(frame, DEMOSAICERS["bilinear"]) * masks(frame.cfa, frame.mosaic_dn.shape)).sum(axis=0)
    np.testing.assert_allclose(seen, balanced(normalise(frame), frame.cfa, frame.white_balance), rtol=1e-6)
