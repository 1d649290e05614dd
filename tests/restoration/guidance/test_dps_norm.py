"""dps_norm is the published algorithm."""

from functools import partial

import torch

from lowlight_kedro.restoration.guidance import dps_norm
from lowlight_kedro.restoration.measurement import Measurement
from tests.restoration.guidance.scenes import level, normal, scene


def test_one_step_is_the_papers_in_its_own_variance_preserving_scale():
    """Algorithm 1, lines 3 to 7, with alpha-bar = 1 / (1 + sigma^2), the posterior of q(x_{i-1} | x_i, x0) and the gradient by x_i."""
    at = scene("bayer")
    levels, inputs = [], []

    def spy(x, sigma):
        levels.append(float(sigma))
        inputs.append(x.detach())
        return at.prior.denoiser(x, sigma)

    states = list(dps_norm(spy, at.measurement, zeta=0.7, sigma_max=2.0).draw(at.truth, 3, torch.Generator().manual_seed(0)))
    noise = torch.Generator().manual_seed(0)
    normal(at.truth, noise)  # the start
    z, sigma, following = normal(at.truth, noise), levels[0], levels[1]
    bar, bar_next = 1 / (1 + sigma**2), 1 / (1 + following**2)
    alpha = bar / bar_next
    x = (inputs[0] * bar**0.5).requires_grad_()
    x0 = at.prior.denoiser(x / bar**0.5, level(sigma))
    distance = (at.measurement.mask * (at.measurement.y - x0)).norm()
    gradient = torch.autograd.grad(distance.square(), x)[0]
    ahead = alpha**0.5 * (1 - bar_next) / (1 - bar) * x + bar_next**0.5 * (1 - alpha) / (1 - bar) * x0
    ahead = ahead + ((1 - bar_next) / (1 - bar) * (1 - alpha)) ** 0.5 * z
    expected = (ahead - 0.7 / distance * gradient).detach() / bar_next**0.5
    torch.testing.assert_close(states[0], expected, rtol=1e-8, atol=1e-8)


def test_it_does_not_know_the_noise_of_a_site():
    at = scene("bayer")
    one, other = (
        list(dps_norm(at.prior.denoiser, measurement).draw(at.truth, 5, torch.Generator().manual_seed(0)))[-1]
        for measurement in (at.measurement, Measurement(at.measurement.y, at.measurement.mask, 9 * at.measurement.s))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_zeta_0_is_the_prior():
    at = scene("bayer")
    far = Measurement(at.measurement.y + 100, at.measurement.mask, at.measurement.s)
    method = partial(dps_norm, at.prior.denoiser, zeta=0.0)
    one, other = (list(method(m).draw(at.truth, 5, torch.Generator().manual_seed(0)))[-1] for m in (at.measurement, far))
    torch.testing.assert_close(one, other)
