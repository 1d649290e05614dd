"""The strips against the kernels of the paper, figure 2, by SciPy's correlation."""

import numpy as np
import pytest
from scipy.ndimage import correlate

from lowlight_kedro.sensor.cfa import masks
from lowlight_kedro.sensor.demosaic import malvar2004, strips
from tests.conftest import PHASES

GREEN = np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
ALONG_ROW = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]) / 8
DIAGONAL = np.array([[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]) / 8


def by_correlation(mosaic, cfa):
    along_row, along_column, diagonal, green_kernel = (
        correlate(mosaic.astype(float), kernel, mode="mirror") for kernel in (ALONG_ROW, ALONG_ROW.T, DIAGONAL, GREEN)
    )
    red, green, blue = masks(cfa, mosaic.shape)
    planes = [np.where(green, mosaic, green_kernel)]
    for own, other in ((red, blue), (blue, red)):
        in_row = green & own.any(axis=1, keepdims=True)
        at_green = np.where(in_row, along_row, along_column)
        planes.append(np.where(own, mosaic, np.where(other, diagonal, at_green)))
    return np.stack([planes[1], planes[0], planes[2]])


@pytest.mark.parametrize("shape", [(24, 30), (25, 31), (24, 31), (3, 4), (2, 2)])
@pytest.mark.parametrize("cfa", PHASES)
def test_malvar_is_the_correlation_with_its_kernels_to_the_border(cfa, shape, rng, monkeypatch):
    monkeypatch.setattr(strips, "PLANE", 60)
    mosaic = rng.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(malvar2004(mosaic, cfa), by_correlation(mosaic, cfa), atol=2e-6)


@pytest.mark.parametrize("cfa", PHASES)
def test_a_flat_colour_is_exact_to_the_bit(cfa):
    colours = np.array([0.1, 0.3, 0.7], np.float32)
    out = malvar2004(colours[np.tile(np.asarray(cfa), (6, 7))], cfa)
    np.testing.assert_array_equal(out, np.broadcast_to(colours[:, None, None], out.shape))
