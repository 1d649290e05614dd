import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import BAYER_RGGB, tile_pattern
from lowlight_kedro.sensor.frame import normalise
from lowlight_kedro.sensor.noise import CameraNoise, PoissonGaussian
from lowlight_kedro.sensor.simulate import Camera, expose, recording

CAMERA = Camera("Acme One", black_level=60, white_level=1023, neutral=(0.5, 1.0, 0.6))
RANGE = 1023 - 60


def raw(light, noise, rng, shape=(80, 90)):
    return expose(
        np.full((3, *shape), light), BAYER_RGGB, exposure_s=0.1, full_exposure_s=1.0, iso=100, noise=noise, camera=CAMERA, rng=rng
    )


def test_a_frame_holds_what_the_noise_model_drew(rng):
    """The digital numbers normalised are the sample itself: nothing rounds or clips a second time."""
    noise = CameraNoise(2e-3, 30 / RANGE, tail=-0.1, row_noise=3 / RANGE, **recording(CAMERA))
    for light in (0.0, 1.0, 12.0):
        frame = raw(light, noise, np.random.default_rng(1))
        drawn = noise.sample(np.full((80, 90), light / 10), np.random.default_rng(1), tile_pattern(np.asarray(BAYER_RGGB), (80, 90)))
        np.testing.assert_allclose(normalise(frame), drawn, atol=1e-6)
    assert frame.mosaic_dn.max() == 1023
    assert raw(0.0, noise, rng).mosaic_dn.min() == 0


def test_the_black_error_belongs_to_the_colour(rng):
    frames = [
        normalise(raw(0.0, CameraNoise(2e-3, 1 / RANGE, black_error=5 / RANGE, **recording(CAMERA)), rng, (20, 20))) for _ in range(400)
    ]
    red, green, other = (np.array([frame[i::2, j::2].mean() for frame in frames]) * RANGE for i, j in ((0, 0), (0, 1), (1, 0)))
    assert red.std() == pytest.approx(5, rel=5 / np.sqrt(800))
    np.testing.assert_allclose(green, other, atol=1)
    assert abs(np.corrcoef(red, green)[0, 1]) < 5 / np.sqrt(400)


@pytest.mark.parametrize("noise", [PoissonGaussian(2e-3, 3 / RANGE), CameraNoise(2e-3, 3 / RANGE, step=1 / RANGE, white=None)])
def test_noise_that_does_not_record_whole_digital_numbers_is_refused(noise, rng):
    with pytest.raises(ValueError, match=r"whole DN from 0 to 1023.*recording\(camera\)"):
        raw(10.0, noise, rng)
