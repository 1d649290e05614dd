"""What is taken out as a lattice, and what is not."""

import numpy as np
import pytest

from lowlight_kedro.restoration.lattice import FAINT, without_lattice

STD = 0.01
ROWS, COLUMNS = (axis[None] for axis in np.indices((90, 70)))
CARRIERS = {"rows": (-1.0) ** ROWS, "columns": (-1.0) ** COLUMNS, "both": (-1.0) ** (ROWS + COLUMNS)}
GRADIENT = 0.02 + 4e-4 * ROWS + 2e-4 * COLUMNS


def cleaned(light, std=STD):
    light = light.astype(np.float32)
    return without_lattice(light, np.full_like(light, std))


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
def test_a_faint_lattice_goes_and_a_strong_one_stays(carrier):
    faint, strong = 0.3 * FAINT * STD * carrier, 10 * FAINT * STD * carrier
    assert np.abs(cleaned(GRADIENT + faint) - GRADIENT).max() < 0.05 * 0.3 * FAINT * STD
    np.testing.assert_allclose(cleaned(GRADIENT + strong), GRADIENT + strong, atol=0.01 * 10 * FAINT * STD)


def test_a_lattice_is_followed_where_it_grows_to_the_edges_of_any_frame():
    lattice = 0.3 * FAINT * STD * CARRIERS["rows"] * (1 + COLUMNS / 70)
    for height, width in ((90, 70), (37, 29), (9, 10)):
        light, truth = (GRADIENT + lattice)[:, :height, :width], GRADIENT[:, :height, :width]
        before, after = (np.abs(x - truth).mean() for x in (light, cleaned(light)))
        assert after < 0.2 * before
    tiny = (GRADIENT + lattice)[:, :8, :70].astype(np.float32)
    assert np.array_equal(without_lattice(tiny, tiny), tiny)


def test_what_has_no_lattice_stays():
    """A gradient to rounding; edges; and of irregular detail, in which hardly any amplitude is more than chance, all but little."""
    np.testing.assert_allclose(cleaned(GRADIENT), GRADIENT, atol=2e-7)
    edges = GRADIENT + 0.3 * (ROWS > 41) + 0.2 * (COLUMNS > 30)
    np.testing.assert_allclose(cleaned(edges), edges, atol=0.02 * STD)
    noise = STD * np.random.default_rng(0).standard_normal((3, 90, 70))
    assert (cleaned(GRADIENT + noise) - GRADIENT - noise).std() < 0.06 * STD


def test_channels_do_not_mix():
    faint = np.concatenate([GRADIENT + 0.3 * FAINT * STD * CARRIERS["both"], GRADIENT, 2 * GRADIENT])
    alone = np.concatenate([cleaned(channel[None]) for channel in faint])
    np.testing.assert_array_equal(cleaned(faint), alone)
