import tempfile

import numpy as np
import pytest

from lowlight_kedro.datasets.libraw import Scaling, available, libraw_demosaicer
from lowlight_kedro.pipelines.preprocessing.options import DemosaicerOptions
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks, sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS
from tests.conftest import PHASES
from tests.sensor.test_demosaic import shifted

CASES = [(name, cfa) for cfa in (BAYER_RGGB, PHASES[1], shifted(XTRANS, 3, 4)) for name in available(len(cfa))]


@pytest.mark.parametrize(("algorithm", "cfa"), CASES)
def test_measured_values_stay_below_black_too_and_nothing_is_left_behind(algorithm, cfa, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mosaic = rng.normal(size=(49, 63)).astype(np.float32)
    out = libraw_demosaicer(algorithm)(mosaic, cfa)
    assert out.shape == (3, 49, 63)
    np.testing.assert_allclose((out * masks(cfa, mosaic.shape)).sum(axis=0), mosaic, atol=0.51 * Scaling.of(mosaic).step + 1e-6)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("algorithm", "cfa"), CASES)
def test_a_flat_colour_is_kept_to_the_border(algorithm, cfa):
    flat = np.broadcast_to(np.array([0.5, -0.2, 0.8], np.float32)[:, None, None], (3, 49, 63))
    # LibRaw's LINEAR and VNG round the weights of X-Trans to 1/256 of their sum.
    atol = 1 / 200 if len(cfa) == 6 and algorithm in ("LINEAR", "VNG") else 3e-4
    np.testing.assert_allclose(libraw_demosaicer(algorithm)(sample(flat, cfa), cfa), flat, atol=atol)


@pytest.mark.parametrize("cfa", PHASES)
def test_linear_is_our_bilinear(cfa, rng):
    mosaic = rng.uniform(-0.1, 1.2, size=(49, 63)).astype(np.float32)
    ours, theirs = DEMOSAICERS["bilinear"](mosaic, cfa), libraw_demosaicer("LINEAR")(mosaic, cfa)
    # Ours adds a ten-thousandth of the wider neighbourhood.
    np.testing.assert_allclose(theirs, ours, atol=2 * Scaling.of(mosaic).step + 5e-4)


def test_a_flat_mosaic_of_one_value():
    np.testing.assert_allclose(libraw_demosaicer("AHD")(np.full((40, 40), 0.3, np.float32), BAYER_RGGB), 0.3, atol=2e-5)


def test_an_algorithm_that_is_missing_is_answered_with_those_that_are_there():
    with pytest.raises(ValueError, match=r"no demosaicing algorithm 'AMAZE'; choose one of: .*LINEAR.*AHD"):
        DemosaicerOptions(bayer="libraw:AMAZE", xtrans="bilinear")
    with pytest.raises(ValueError, match="LibRaw's DHT is for Bayer mosaics only; for X-Trans choose one of: LINEAR, VNG, PPG, AHD"):
        libraw_demosaicer("DHT")(np.zeros((60, 60), np.float32), XTRANS)


def test_options_find_ours_and_libraws():
    options = DemosaicerOptions(bayer="libraw:LINEAR", xtrans="superpixel")
    mosaic = np.random.default_rng(0).uniform(size=(40, 40)).astype(np.float32)
    np.testing.assert_allclose(options.chosen(BAYER_RGGB)(mosaic, BAYER_RGGB), DEMOSAICERS["bilinear"](mosaic, BAYER_RGGB), atol=1e-3)
    assert options.chosen(XTRANS) is DEMOSAICERS["superpixel"]
    assert (options.scale(BAYER_RGGB), options.scale(XTRANS)) == (1, 3)
    with pytest.raises(ValueError, match="unknown demosaicer 'bilinaer'"):
        DemosaicerOptions(bayer="bilinaer", xtrans="bilinear")
