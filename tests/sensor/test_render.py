from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from lowlight_kedro.sensor.cfa import BAYER_RGGB, UNFILTERED, XTRANS, masks
from lowlight_kedro.sensor.render import (
    SRGB_FROM_XYZ_D65,
    Display,
    camera_to_srgb,
    display_exposure,
    faded,
    fraction_outside,
    render,
    resized,
    rolled_off,
    shrunk,
    square,
    srgb_decode,
    srgb_encode,
    unknown_colour,
)

DISPLAY = Display(quantile=0.99, dark=0.5, lift=0.7, least=0.25, most=4.0, knee=0.8)
NIKON = camera_to_srgb(np.array([[0.7309, -0.1403, -0.0519], [-0.8474, 1.6008, 0.2622], [-0.2433, 0.2826, 0.8064]]))


def test_the_transfer_curve_round_trips():
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(srgb_decode(srgb_encode(values)), values, atol=1e-6)


def test_a_camera_whose_matrix_is_srgb_renders_without_a_matrix():
    np.testing.assert_allclose(camera_to_srgb(SRGB_FROM_XYZ_D65), np.eye(3), atol=1e-6)


def test_grey_stays_grey_whatever_the_matrix(rng):
    matrix = camera_to_srgb(rng.uniform(0.2, 1, (3, 3)) + np.eye(3))
    grey = np.full((3, 4, 5), 0.18, np.float32)
    out = render(grey, matrix)
    np.testing.assert_allclose(out, srgb_encode(np.float64(0.18)), atol=1e-5)


def test_an_unknown_matrix_is_the_identity():
    np.testing.assert_array_equal(camera_to_srgb(np.zeros((4, 3))), np.eye(3))


def flat(value: float) -> np.ndarray:
    return np.full((3, 8, 9), value, np.float32)


def test_a_well_exposed_picture_is_shown_as_it_is(rng):
    light = rng.uniform(0, 0.8, (3, 40, 50)).astype(np.float32)
    assert display_exposure(light, DISPLAY) == 1.0
    np.testing.assert_allclose(render(light, NIKON, knee=None), render(light, NIKON), atol=0)
    dim = 0.3 * light
    np.testing.assert_array_equal(render(dim, NIKON, knee=0.8, saturation=50.0), render(dim, NIKON))


def test_the_exposure_follows_its_equation():
    assert display_exposure(flat(2.4), DISPLAY) == pytest.approx(0.5)
    assert display_exposure(flat(0.2), DISPLAY) == pytest.approx(2.5**0.7)
    assert display_exposure(flat(0.2), replace(DISPLAY, lift=1.0)) == pytest.approx(2.5)
    assert display_exposure(flat(0.2), replace(DISPLAY, lift=0.0)) == 1.0
    assert [display_exposure(flat(value), DISPLAY) for value in (0, -1, 1e-4, 100)] == [4, 4, 4, 0.25]


def test_the_brightness_shown_never_falls_as_the_scene_gets_brighter():
    values = np.geomspace(1e-3, 100, 400)
    shown = [value * display_exposure(flat(value), DISPLAY) for value in values]
    assert (np.diff(shown) > -1e-6).all()
    assert shown[200] < DISPLAY.dark  # 0.3 stays darker than 0.5


def test_a_few_lamps_and_what_lies_above_saturation_do_not_decide():
    light = flat(0.6).repeat(100, axis=2)
    light[:, 0, :3] = 1000
    assert display_exposure(light, DISPLAY) == 1.0
    assert display_exposure(flat(9.0), DISPLAY, saturation=1.5) == pytest.approx(0.8)


def test_a_coloured_light_decides_by_its_brightest_channel():
    light = flat(0.1)
    light[2] = 3.6
    assert display_exposure(light, DISPLAY) == pytest.approx(1.2 / 3.6)


def test_the_exposure_of_a_large_picture_is_that_of_all_its_pixels(rng):
    light = rng.gamma(2, 0.35, (3, 100, 3000)).astype(np.float32)
    assert display_exposure(light, DISPLAY) == pytest.approx(1.2 / np.quantile(light.max(axis=0), 0.99), rel=0.02)


def test_highlights_end_softly():
    ramp = np.linspace(0, 3, 3001)
    rolled = rolled_off(np.broadcast_to(ramp, (3, 1, 3001)).copy(), 0.8)[0, 0]
    np.testing.assert_array_equal(rolled[ramp <= 0.8], ramp[ramp <= 0.8])
    np.testing.assert_allclose(rolled[ramp >= 1.2], 1, atol=1e-12)
    slope = np.diff(rolled) / np.diff(ramp)
    assert (slope > -1e-9).all()
    assert np.abs(np.diff(slope)).max() < 0.01  # no kink: a clip would jump by 1
    assert rolled.max() <= 1 + 1e-12


def test_highlights_keep_their_hue(rng):
    colours = rng.uniform(0.05, 1, (3, 10, 10)) * rng.uniform(0.1, 5, (10, 10))
    rolled = rolled_off(colours, 0.8)
    np.testing.assert_allclose(rolled / rolled.max(axis=0), colours / colours.max(axis=0), rtol=1e-12)
    assert rolled.max() <= 1 + 1e-12


def test_a_brightening_light_gets_brighter_in_every_channel(rng):
    colour = rng.uniform(0.1, 1, (3, 1, 1)) * np.geomspace(0.01, 3, 300)
    for knee, saturation in ((0.8, 100.0), (None, 1.0)):
        shown = render(colour, np.eye(3), knee=knee, saturation=saturation)
        assert (np.diff(shown, axis=2) >= -1e-6).all()


@pytest.mark.parametrize("exposure", [0.25, 0.3, 1.0])
def test_saturated_light_is_white_at_any_exposure(exposure):
    """All photosites saturate at 4 times the white of the long exposure; balanced they are 8, 4 and 6.4."""
    light = np.array([8.0, 4.0, 6.4], np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    shown = render(light, NIKON, exposure=exposure, knee=0.8, saturation=4.0)
    np.testing.assert_allclose(shown, 1, atol=1e-5)
    grey = np.full((3, 4, 4), 1 / exposure, np.float32)
    unsaturated = render(grey, NIKON, exposure=exposure, knee=0.8, saturation=40.0)
    np.testing.assert_allclose(unsaturated, srgb_encode(np.float64(0.95)), atol=1e-5)  # 1 - 0.2^2 / 0.8


def test_the_exposure_of_the_picture_is_a_factor_on_light(rng):
    light = rng.uniform(-0.1, 0.6, (3, 300, 20)).astype(np.float32)
    np.testing.assert_allclose(render(light, NIKON, exposure=1.5), render(light * np.float32(1.5), NIKON), atol=1e-6)


def test_rows_are_rendered_alike_whatever_their_number(rng):
    light = rng.uniform(0, 1, (3, 600, 7)).astype(np.float32)
    np.testing.assert_array_equal(render(light, NIKON)[:, 250:270], render(light[:, 250:270], NIKON))


@pytest.mark.parametrize(
    ("shape", "expected"), [((60, 100), (60, 100)), ((300, 500), (60, 100)), ((301, 101), (75, 25)), ((2, 1000), (1, 100))]
)
def test_a_shrunk_picture_holds_means_and_fits(shape, expected, rng):
    light = rng.uniform(size=(3, *shape)).astype(np.float32)
    small = shrunk(light, 100)
    assert small.shape == (3, *expected)
    n = -(-max(shape) // 100)
    rows, columns = min(n, shape[0]), min(n, shape[1])
    np.testing.assert_allclose(small[:, 0, 0], light[:, :rows, :columns].mean(axis=(1, 2)), rtol=1e-5)
    last = [slice((side - 1) * step, side * step) for side, step in zip(expected, (rows, columns), strict=True)]
    np.testing.assert_allclose(small[:, -1, -1], light[:, last[0], last[1]].mean(axis=(1, 2)), rtol=1e-5)


def test_the_edge_of_saturated_light_stays_neutral():
    light = np.zeros((3, 10, 400), np.float32)
    light[:, :, ::2] = np.array([8.0, 4.0, 6.4], np.float32)[:, None, None]
    np.testing.assert_allclose(shrunk(light, 100, saturation=4.0), 2.0, rtol=1e-6)


@pytest.mark.parametrize(("shape", "side", "expected"), [((60, 90), 90, (60, 90)), ((60, 90), 71, (47, 71)), ((90, 3), 40, (40, 1))])
def test_a_resized_picture_has_the_size_asked_for_and_does_not_ring(shape, side, expected, rng):
    light = np.where(rng.random((3, *shape)) > 0.5, 1, 0).astype(np.float32)
    light[:, : shape[0] // 2] = 1
    small = resized(light, side)
    assert small.shape == (3, *expected)
    assert small.min() >= 0
    assert small.max() <= 1 + 1e-6
    np.testing.assert_allclose(small.mean(), light.mean(), atol=0.04)
    np.testing.assert_allclose(small[:, : expected[0] // 2 - 2], 1, atol=1e-6)
    assert resized(9 * light, side, saturation=4).max() <= (9 if side == max(shape) else 4 + 1e-5)


@pytest.mark.parametrize(("aspect", "expected"), [(1, (20, 30)), (1.5, (20, 45)), (0.5, (40, 30))])
def test_pixels_are_shown_square(aspect, expected):
    rows, columns = np.mgrid[:20, :30].astype(np.float32)
    light = np.stack([rows / 20, columns / 30, np.full_like(rows, 0.4)])
    shown = square(light, aspect)
    assert shown.shape == (3, *expected)
    np.testing.assert_allclose(shown.mean(axis=(1, 2)), light.mean(axis=(1, 2)), rtol=1e-3)
    np.testing.assert_allclose(shown[2], 0.4, rtol=1e-6)


def test_what_lies_outside_is_counted():
    light = np.array([-0.1, 0, 0.5, 1, 1.1, 2, 3, 4]).reshape(1, 2, 4)
    assert fraction_outside(light) == {"below": 1 / 8, "above": 4 / 8}
    assert fraction_outside(light, -1, 2.5) == {"below": 0, "above": 2 / 8}


@pytest.mark.parametrize("wrong", [{"knee": 1.0}, {"lift": 1.5}, {"quantile": 0.0}, {"dark": 2.0}, {"least": 2.0}, {"most": 0.5}])
def test_impossible_displays_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TypeAdapter(Display).validate_python(vars(DISPLAY) | wrong)


def sky(cfa, side=48):
    """The signal of a blown sky with a dark bar of 12 columns."""
    signal = np.ones((side, side), np.float32)
    signal[:, 18:30] = 0.1
    return signal, cfa


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
def test_magenta_before_a_blown_sky_becomes_neutral(cfa):
    light = np.full((3, 48, 48), 1.0, np.float32)
    light[1, :, 17:19] = 0.4
    shown = faded(light, *sky(cfa))
    np.testing.assert_allclose(shown[[0, 2], :, 17:19], 0.4, atol=1e-6)
    np.testing.assert_array_equal(shown[1], light[1])


def test_away_from_blown_sites_nothing_changes(rng):
    light = rng.random((3, 48, 48), dtype=np.float32)
    shown = faded(light, *sky(BAYER_RGGB))
    np.testing.assert_array_equal(shown[:, :, 22:26], light[:, :, 22:26])
    signal = np.full((48, 48), 0.98, np.float32)
    assert faded(light, signal, BAYER_RGGB) is light


def test_of_three_values_a_pixel_green_alone_tells_what_is_blown():
    light = np.full((3, 48, 48), 1.0, np.float32)
    light[1, :, 17:19] = 0.4
    signal = np.stack([np.full((48, 48), 0.2, np.float32), sky(BAYER_RGGB)[0], np.full((48, 48), 1.0, np.float32)])
    np.testing.assert_allclose(faded(light, signal, UNFILTERED)[[0, 2], :, 17:19], 0.4, atol=1e-6)
    assert faded(light, np.roll(signal, 1, 0), UNFILTERED) is light


@pytest.mark.parametrize("channel", [0, 2])
def test_a_lamp_keeps_its_colour(channel):
    """One channel alone exceeds green; and where green sites are not blown, whatever the others do."""
    light = np.full((3, 48, 48), 0.3, np.float32)
    light[channel] = 1.0
    np.testing.assert_allclose(faded(light, np.ones((48, 48), np.float32), BAYER_RGGB), light)
    pink = np.where(masks(BAYER_RGGB, (48, 48))[1], 0.3, 1).astype(np.float32)
    light[2 - channel] = 0.9
    assert faded(light, pink, BAYER_RGGB) is light


def test_what_changes_changes_gradually(rng):
    """Green just below the nearer channel and just above it: no jump."""
    signal, cfa = sky(BAYER_RGGB)
    shown = []
    for green in (0.699, 0.701):
        light = np.empty((3, 48, 48), np.float32)
        light[:] = np.array([1.0, green, 0.7])[:, None, None]
        shown.append(faded(light, signal, cfa))
    assert np.abs(shown[0] - shown[1]).max() < 0.01
    unknown = unknown_colour(signal, cfa)
    assert unknown.min() == 0
    assert unknown.max() == 1
    assert np.abs(np.diff(unknown, axis=1)).max() < 0.7
