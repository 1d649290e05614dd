from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lowlight_kedro.datasets.demo import read_photograph
from lowlight_kedro.sensor.calibration.single_image import from_image
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.frame import normalise
from lowlight_kedro.sensor.noise import CameraNoise, PoissonGaussian
from lowlight_kedro.sensor.simulate import Camera, scene_light
from tests.conftest import PHASES

STEP = 1 / 15871
GAIN, READ = 1.53 * STEP, 6.3 * STEP  # Sony A7S II at ISO 1600
CAMERA = Camera("test", 512, 16383, (0.5, 1.0, 0.6))


@cache
def photograph(name="coffee.png", blur=0.8):
    """A photograph as linear light, through a little lens blur that takes its own grain away."""
    return gaussian_filter(scene_light(read_photograph(name, 1), CAMERA, 0.9), (0, blur, blur))


def steps(shape=(3, 480, 640), low=0.0, high=0.01):
    """Grey light in 80 x 80 squares."""
    levels = np.random.default_rng(1).uniform(low, high, (8, 8))
    return np.broadcast_to(np.kron(levels, np.ones((80, 80)))[: shape[1], : shape[2]], shape)


def shoot(light, cfa=BAYER_RGGB, noise=None, seed=0):
    signal = (noise or PoissonGaussian(GAIN, READ)).sample(sample(light, cfa), np.random.default_rng(seed))
    return np.minimum(np.rint(signal / STEP) * STEP, 1)


def agrees(estimate, gain=GAIN, read_noise=READ, errors=4.0):
    """Within `errors` standard errors; scatter decides the errors, so their tails are longer than Gaussian."""
    return (
        abs(estimate.gain - gain) < errors * estimate.gain_error
        and abs(estimate.read_noise - read_noise) < errors * estimate.read_noise_error
    )


@pytest.mark.parametrize("cfa", [*PHASES, XTRANS], ids=str)
def test_a_patchwork_gives_its_noise_back_in_every_cfa(cfa):
    estimate = from_image(shoot(steps(), cfa), cfa, step=STEP)
    assert estimate.verdict == "good"
    assert agrees(estimate)
    assert estimate.gain == pytest.approx(GAIN, rel=0.12)
    assert estimate.read_noise == pytest.approx(READ, rel=0.08)


def test_a_gain_that_is_wrong_by_twenty_percent_is_noticed():
    estimate = from_image(shoot(steps(shape=(3, 640, 640))), BAYER_RGGB, step=STEP)
    assert not agrees(estimate, gain=1.2 * GAIN)
    assert not agrees(estimate, read_noise=1.2 * READ)


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_a_photograph_gives_its_noise_back_at_every_exposure(ratio):
    estimate = from_image(shoot(photograph() / ratio), BAYER_RGGB, step=STEP)
    assert agrees(estimate)
    assert estimate.gain == pytest.approx(GAIN, rel=0.2)


def test_texture_is_not_taken_for_noise():
    rng = np.random.default_rng(2)
    light = steps(high=0.05, shape=(3, 640, 640)).copy()
    light[:, :, 320:] *= rng.uniform(0.5, 1.5, (640, 320))  # half of the frame: contrast of 29 %, every site its own
    estimate = from_image(shoot(light), BAYER_RGGB, step=STEP)
    assert agrees(estimate)
    assert estimate.gain == pytest.approx(GAIN, rel=0.15)


def test_a_smooth_gradient_is_not_texture():
    light = np.broadcast_to(np.linspace(0, 0.5, 640) ** 2, (3, 480, 640))
    estimate = from_image(shoot(light), BAYER_RGGB, step=STEP)
    assert estimate.verdict == "good"
    assert agrees(estimate)


def test_errors_cover_the_truth_over_scenes_and_draws():
    names = ["coffee.png", "astronaut.png", "motorcycle_left.png", "hubble_deep_field.jpg"]
    draws = [
        from_image(shoot(photograph(name)[:, :320, :448] / 30, seed=seed), BAYER_RGGB, step=STEP) for name in names for seed in range(5)
    ]
    pulls = np.array([(e.gain - GAIN) / e.gain_error for e in draws if e.verdict != "unusable"])
    assert len(pulls) >= 15
    assert np.mean(np.abs(pulls) < 2) > 0.75  # 20 draws: 95 % less 4 standard errors
    assert pulls.std() > 0.4  # not by errors that are far too large


def test_row_noise_does_not_enter():
    noisy = shoot(steps(), noise=CameraNoise(GAIN, READ, row_noise=2 * READ, white=None))
    assert agrees(from_image(noisy, BAYER_RGGB, step=STEP))


def test_the_quantisation_step_is_taken_off():
    coarse = 4 * READ
    signal = np.rint(PoissonGaussian(GAIN, READ).sample(sample(steps(high=0.05), BAYER_RGGB), np.random.default_rng(0)) / coarse) * coarse
    with_step, without = (from_image(signal, BAYER_RGGB, floor=-np.inf, step=step) for step in (coarse, 0.0))
    assert without.read_noise**2 > with_step.read_noise**2
    fine = 2 * READ
    signal = np.rint(PoissonGaussian(GAIN, READ).sample(sample(steps(), BAYER_RGGB), np.random.default_rng(0)) / fine) * fine
    assert from_image(signal, BAYER_RGGB, step=fine).read_noise == pytest.approx(READ, rel=0.08)
    assert from_image(signal, BAYER_RGGB).read_noise > 1.1 * READ


def test_a_camera_that_clips_at_black_is_found_and_undone():
    light = steps(shape=(3, 640, 640), high=0.02)
    clipped = np.maximum(shoot(light), 0)
    estimate = from_image(clipped, BAYER_RGGB, step=STEP)
    assert (estimate.verdict, "clips at black" in estimate.reason) == ("poor", True)
    assert estimate.gain == pytest.approx(GAIN, rel=0.12)
    assert estimate.read_noise == pytest.approx(READ, rel=0.15)


def test_saturated_sky_does_not_bend_the_line():
    light = steps(shape=(3, 640, 640), high=0.6).copy()
    light[:, :200] = 1.5
    estimate = from_image(shoot(light), BAYER_RGGB, step=STEP)
    assert estimate.gain == pytest.approx(GAIN, rel=0.1)


@pytest.mark.parametrize(
    ("light", "reason"),
    [
        (np.zeros((3, 300, 300)), "span only"),
        (np.full((3, 300, 300), 2.0), "saturated"),
        (np.full((3, 60, 60), 0.1), "too small"),
        (np.full((3, 3, 2), 0.1), "too small"),
    ],
)
def test_a_frame_that_cannot_tell_the_gain_says_why(light, reason):
    estimate = from_image(shoot(light), BAYER_RGGB)
    assert estimate.verdict == "unusable"
    assert reason in estimate.reason


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_frame_without_noise_is_unusable(value):
    assert from_image(np.full((300, 300), value), BAYER_RGGB).verdict == "unusable"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_input_is_refused(bad):
    signal = shoot(steps(shape=(3, 100, 100)))
    signal[3, 5] = bad
    with pytest.raises(ValueError, match="1 nan or infinite"):
        from_image(signal, BAYER_RGGB)
    with pytest.raises(ValueError, match="one mosaic"):
        from_image(np.zeros((3, 10, 10)), BAYER_RGGB)


def test_the_frame_is_left_as_it_was():
    signal = shoot(steps(shape=(3, 200, 200)))
    before = signal.copy()
    from_image(signal, BAYER_RGGB)
    np.testing.assert_array_equal(signal, before)


def test_exposures_of_one_camera_agree(bracket):
    from lowlight_kedro.datasets.raw import read_frame

    found = []
    for name in ("sample2", "sample1"):
        frame = read_frame(bracket / f"{name}.dng")
        found.append(from_image(normalise(frame), frame.cfa, step=1 / frame.white_level))
    assert all(estimate.verdict != "unusable" for estimate in found)
    difference = found[0].gain - found[1].gain
    assert abs(difference) < 2 * np.hypot(found[0].gain_error, found[1].gain_error)


def test_noise_of_the_means_does_not_flatten_the_line():
    """In so dark a frame the means of patches scatter as much as the light: sorted by them the gain halves."""
    noise = PoissonGaussian(24.5 * STEP, 45 * STEP)
    light = np.broadcast_to(np.linspace(0, 0.0014, 1400), (3, 1400, 1400))
    estimate = from_image(shoot(light, noise=noise), BAYER_RGGB, step=STEP)
    assert agrees(estimate, noise.gain, noise.read_noise)
    assert estimate.gain == pytest.approx(noise.gain, rel=0.2)
