"""diffpir and ddrm: site by site, no gradient."""

import pytest
import torch

from lowlight_kedro.restoration.guidance import ddrm, diffpir
from lowlight_kedro.restoration.measurement import Measurement
from tests.restoration.guidance.scenes import MASKS, drawn, given_both, level, normal, repeated, scene, white


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("options", [{"sigma_data": 0.3}, {"variance": [[0.2, 0.0276923077], [0.4, 0.0576]]}])
def test_diffpir_is_exact_where_its_assumption_holds(name, options):
    """Independent values: there D_y must be the posterior mean given x_t and y."""
    at = scene(name, draws=3, prior=white(0.3))
    x = at.truth + 0.4 * normal(at.truth, torch.Generator().manual_seed(1))
    got = diffpir(at.prior.denoiser, at.measurement, **options).denoiser(x, level(0.4))
    torch.testing.assert_close(got, given_both(at.prior, at.measurement, x, 0.4), rtol=1e-6, atol=1e-6)


def test_diffpirs_strength_multiplies_the_variance():
    at = scene("bayer", prior=white(0.5))
    table = [[0.4, 3 * 0.16 * 0.25 / (0.16 + 0.25)]]
    one, other = (
        diffpir(at.prior.denoiser, at.measurement, **o).denoiser(at.truth, level(0.4)) for o in ({"strength": 3.0}, {"variance": table})
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_ddrms_state_holds_noise_of_its_level_and_counts_y_once(name, eta):
    """With the truth as its denoiser, q(x_t | x0) = N(x0, sigma_t^2) over y's noise and its own, at every level and site."""
    draws, seen = 1000, []
    generator = torch.Generator().manual_seed(0)
    at = scene(name)
    truth = at.truth.expand(draws, -1, -1, -1)
    y = at.measurement.mask * (truth + at.measurement.s * normal(truth, generator))

    def oracle(x, sigma):
        seen.append(((x - truth) / sigma).flatten(1))
        return truth

    states = list(ddrm(oracle, Measurement(y, at.measurement.mask, at.measurement.s), eta=eta, sigma_max=0.5).draw(truth, 12, generator))
    assert len(states) == 12
    torch.testing.assert_close(states[-1], truth)
    for noise in seen:
        assert (noise.square().mean(0) - 1).abs().max() < 6 * (2 / draws) ** 0.5
        assert noise.mean(0).abs().max() < 6 / draws**0.5


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_ddrm_keeps_exact_measurements_and_draws_independent_missing_values(eta):
    """With many steps their variance is (1 + sqrt(1 - eta^2)) / 2 of the prior's: exact for eta = 0."""
    draws = 300
    at = scene("bayer", prior=white(0.5))
    sharp = Measurement(at.measurement.mask * at.truth, at.measurement.mask, torch.full_like(at.measurement.s, 1e-3))
    posterior = ddrm(at.prior.denoiser, repeated(sharp, draws), eta=eta)
    x = drawn(posterior, torch.zeros_like(at.truth).expand(draws, -1, -1, -1), 100, torch.Generator().manual_seed(1))
    missing = at.measurement.mask == 0
    assert (x - at.truth)[~missing.expand_as(x)].abs().max() < 0.06  # six times the last level
    assert x.mean(0)[missing[0]].abs().max() < 0.5 * 5 / draws**0.5
    assert (x.var(0)[missing[0]] / 0.25).mean() == pytest.approx((1 + (1 - eta**2) ** 0.5) / 2, abs=0.06)


def test_ddrm_starts_no_lower_than_the_noise_it_must_hold():
    at = scene("rgb")
    levels = []

    def denoiser(x, sigma):
        levels.append(float(sigma))
        return at.prior.denoiser(x, sigma)

    posterior = ddrm(denoiser, Measurement(at.measurement.y, at.measurement.mask, 7 * at.measurement.s), sigma_max=1.0)
    drawn(posterior, at.truth, 5, torch.Generator())
    assert levels[0] == pytest.approx(2.1)
    assert levels[-1] == pytest.approx(0.01)
