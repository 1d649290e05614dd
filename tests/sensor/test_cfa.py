import numpy as np
import pytest

from lowlight_kedro.sensor import cfa
from tests.conftest import CFAS


@pytest.mark.parametrize("pattern", [*CFAS, cfa.UNFILTERED])
def test_embed_is_the_adjoint_of_sample(pattern, rng):
    x = rng.normal(size=(3, 13, 17))
    y = rng.normal(size=cfa.sample(x, pattern).shape)
    assert np.vdot(cfa.sample(x, pattern), y) == pytest.approx(np.vdot(x, cfa.embed(y, pattern)), rel=1e-12)


@pytest.mark.parametrize("pattern", CFAS)
def test_sampling_an_embedded_mosaic_gives_it_back(pattern, rng):
    y = rng.normal(size=(12, 18))
    np.testing.assert_array_equal(cfa.sample(cfa.embed(y, pattern), pattern), y)


@pytest.mark.parametrize("pattern", CFAS)
def test_pattern_is_found_from_libraw_colours_with_two_greens(pattern):
    colours = cfa.tile_pattern(np.asarray(pattern), (36, 36))
    second_green = (colours == 1) & (np.arange(36)[:, None] % 2 == 1)
    assert cfa.from_colours(np.where(second_green, 3, colours)) == pattern


def test_a_pattern_without_period_is_refused(rng):
    with pytest.raises(ValueError, match="neither 2x2 Bayer nor 6x6"):
        cfa.from_colours(rng.integers(0, 3, (36, 36)))


def test_xtrans_measures_green_on_five_of_nine_sites_and_every_channel_in_every_row():
    fraction = cfa.masks(cfa.XTRANS, (6, 6)).mean(axis=(1, 2))
    np.testing.assert_allclose(fraction, [2 / 9, 5 / 9, 2 / 9])
    assert cfa.masks(cfa.XTRANS, (6, 6)).any(axis=2).all()
