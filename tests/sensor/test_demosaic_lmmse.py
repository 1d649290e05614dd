"""What makes the LMMSE filters the best of their kind."""

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.demosaic import DEMOSAICERS, lmmse
from lowlight_kedro.sensor.demosaic.lmmse import CORRELATION, LENGTH, REACH, filters

SIDE = 18
FAR = max(REACH)  # no rival here looks farther


def _response(demosaicer, cfa, row, column):
    """Weights (3, sites) of a linear demosaicer for the pixel (row, column), and the sites (sites, 2)."""
    sites = np.stack(np.mgrid[row - FAR : row + FAR + 1, column - FAR : column + FAR + 1], axis=-1).reshape(-1, 2)
    weights = np.empty((3, len(sites)))
    for index, site in enumerate(sites):
        impulse = np.zeros((SIDE, SIDE), np.float32)
        impulse[tuple(site)] = 1
        weights[:, index] = demosaicer(impulse, cfa)[:, row, column]
    return weights, sites


def _expected_error(weights, sites, cfa, row, column):
    """Mean square error of each colour under the model, written down anew: E (w y - x)^2."""
    places = np.concatenate([sites, np.tile([[row, column]], (3, 1))])
    colours = np.concatenate([np.asarray(cfa)[sites[:, 0] % len(cfa), sites[:, 1] % len(cfa)], [0, 1, 2]])
    distance = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1))
    model = np.exp(-distance / LENGTH) * np.where(colours[:, None] == colours, 1, CORRELATION)
    contrast = np.concatenate([weights, -np.eye(3)], axis=1)
    return np.einsum("ci,ij,cj->c", contrast, model, contrast)


@pytest.mark.parametrize(("other", "cfa"), [("malvar2004", BAYER_RGGB), ("bilinear", BAYER_RGGB), ("bilinear", XTRANS)])
def test_no_other_unbiased_linear_method_has_a_smaller_expected_error(other, cfa):
    gains = []
    for row, column in ((8, 8), (8, 9), (9, 8), (9, 9)):
        best, rival = (
            _expected_error(*_response(demosaicer, cfa, row, column), cfa, row, column) for demosaicer in (lmmse, DEMOSAICERS[other])
        )
        missing = np.arange(3) != cfa[row % len(cfa)][column % len(cfa)]
        gains.extend(rival[missing] / best[missing])
    assert min(gains) > 1
    assert np.mean(gains) > 1.02


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
def test_any_unbiased_change_of_the_weights_raises_the_expected_error(cfa, rng):
    for (row, column), colours in list(filters(cfa, REACH).items())[:8]:
        for colour, taps in enumerate(colours):
            sites = np.asarray([tap[:2] for tap in taps])
            weights = np.asarray([tap[2] for tap in taps])
            drift = np.column_stack([np.asarray(cfa)[tuple((sites % len(cfa)).T)] == c for c in range(3)] + [sites.astype(float)])
            change = rng.normal(size=len(taps))
            change -= drift @ np.linalg.lstsq(drift, change, rcond=None)[0]
            errors = [
                _expected_error(np.tile(weights + step * change, (3, 1)), sites, cfa, row, column)[colour] for step in (-0.02, 0, 0.02)
            ]
            assert min(errors[0], errors[2]) > errors[1]
