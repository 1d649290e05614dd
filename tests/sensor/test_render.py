import numpy as np

from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65, camera_to_srgb, render, srgb_decode, srgb_encode


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
