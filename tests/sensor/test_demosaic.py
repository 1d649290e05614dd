import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import XTRANS, masks, sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS, demosaic
from lowlight_kedro.sensor.frame import balanced, normalise
from tests.conftest import CFAS, PHASES, make_frame

CASES = [(name, cfa) for name in DEMOSAICERS for cfa in (PHASES if name == "malvar2004" else CFAS)]


@pytest.mark.parametrize(("name", "cfa"), CASES)
def test_a_flat_colour_is_reproduced(name, cfa):
    flat = np.broadcast_to(np.array([0.5, 0.2, 0.8], np.float32)[:, None, None], (3, 24, 30))
    np.testing.assert_allclose(DEMOSAICERS[name](sample(flat, cfa), cfa)[:, 3:-3, 3:-3], flat[:, 3:-3, 3:-3], atol=1e-5)


@pytest.mark.parametrize(("name", "cfa"), [case for case in CASES if case[1] is not XTRANS])
def test_a_grey_ramp_is_reproduced_inside(name, cfa):
    rows, columns = np.mgrid[0:24, 0:30].astype(np.float32)
    ramp = np.stack([0.01 * rows + 0.02 * columns] * 3)
    np.testing.assert_allclose(DEMOSAICERS[name](sample(ramp, cfa), cfa)[:, 3:-3, 3:-3], ramp[:, 3:-3, 3:-3], atol=1e-4)


@pytest.mark.parametrize(("name", "cfa"), CASES)
def test_measured_values_stay(name, cfa, rng):
    mosaic = rng.uniform(size=(24, 30)).astype(np.float32)
    out = DEMOSAICERS[name](mosaic, cfa)
    np.testing.assert_allclose((out * masks(cfa, mosaic.shape)).sum(axis=0), mosaic, atol=1e-6)


def test_malvar_refuses_xtrans():
    with pytest.raises(ValueError, match="needs a 2x2 Bayer pattern"):
        DEMOSAICERS["malvar2004"](np.zeros((12, 12), np.float32), XTRANS)


def test_a_frame_is_balanced_and_demosaiced(rng):
    frame = make_frame(rng)
    seen = (demosaic(frame, DEMOSAICERS["bilinear"]) * masks(frame.cfa, frame.mosaic_dn.shape)).sum(axis=0)
    np.testing.assert_allclose(seen, balanced(normalise(frame), frame.cfa, frame.white_balance), rtol=1e-6)
