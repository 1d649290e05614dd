"""Laws of every method in the table: a new one is tested by being listed."""

import pytest
import torch

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.restoration.measurement import Measurement, local_mean
from lowlight_kedro.restoration.windows import windowed
from tests.restoration.guidance.scenes import MASKS, Counted, estimated, level, scene

EVALUATIONS = 40
every = pytest.mark.parametrize("guidance", sorted(GUIDANCE))


def generator(seed=2):
    return torch.Generator().manual_seed(seed)


def small_network(dtype):
    """Depends on its neighbours, not a Gaussian's denoiser, Jacobian neither symmetric nor positive."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(6, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 3, 3, padding=1)).to(dtype)

    class Network(torch.nn.Module):
        def forward(self, x, c_noise):
            return layers(torch.cat([x, c_noise], dim=1))

    return Denoiser(Network(), sigma_data=0.5).to(dtype)


def measured(shape, dtype, s=0.1):
    y = 0.5 * torch.randn(1, *shape, generator=generator(), dtype=torch.float64).to(dtype)
    mask = MASKS["bayer"].repeat(1, 1, shape[1] // 6 + 1, shape[2] // 6 + 1)[..., : shape[1], : shape[2]].to(dtype)
    return Measurement(y * mask, mask, torch.full_like(y, s))


@every
@pytest.mark.parametrize("name", MASKS)
def test_no_method_beats_the_mmse_bound_and_each_beats_the_prior(guidance, name):
    """Mean squared error over truths, against the trace of the posterior covariance: the least there can be."""
    draws = 300
    at = scene(name, draws=draws)
    first = local_mean(at.measurement.y, at.measurement.mask, 4)
    x = estimated(GUIDANCE[guidance](at.prior.denoiser, at.measurement), first, EVALUATIONS, generator())
    errors = (x - at.truth).square().flatten(1).mean(1)
    bound = at.covariance.diag().mean()
    assert errors.mean() > bound - 5 * errors.std() / draws**0.5
    assert errors.mean() < at.prior.covariance.diag().mean()


@every
def test_inputs_stay_unchanged(guidance):
    at = scene("bayer", draws=2)
    inputs = (at.truth, at.measurement.y, at.measurement.mask, at.measurement.s)
    before = [t.clone() for t in inputs]
    posterior = GUIDANCE[guidance](at.prior.denoiser, at.measurement)
    estimated(posterior, at.truth, 5, generator())
    if posterior.denoiser is not None:
        posterior.denoiser(at.truth, level(0.5))
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_one_keeps_its_type_shape_and_device_and_needs_no_graph(guidance, dtype):
    measurement = measured((3, 12, 12), dtype)
    with torch.no_grad():
        x = estimated(GUIDANCE[guidance](small_network(dtype), measurement), measurement.y, 6, generator())
    assert (x.dtype, x.device, x.shape) == (dtype, measurement.y.device, measurement.y.shape)
    assert x.isfinite().all()
    assert not x.requires_grad


@every
def test_images_of_a_batch_do_not_see_each_other(guidance):
    """Two measurements at once, or each alone."""
    at, network = scene("bayer", draws=2), small_network(torch.float64)

    def forms(rows):
        y = at.measurement.y[rows]
        posterior = GUIDANCE[guidance](network, Measurement(y, at.measurement.mask.expand_as(y), at.measurement.s.expand_as(y)))
        means = [posterior.mean()] if posterior.mean else []
        return means + ([posterior.denoiser(at.truth[rows], level(0.4))] if posterior.denoiser else [])

    for both, first, second in zip(forms([0, 1]), forms([0]), forms([1]), strict=True):
        torch.testing.assert_close(both, torch.cat([first, second]), rtol=1e-9, atol=1e-9)


@every
@pytest.mark.parametrize("s", [1e-4, 1e3])
def test_black_sites_and_extreme_noise_stay_finite(guidance, s):
    for measurement in (measured((3, 12, 12), torch.float32, s), measured((3, 12, 12), torch.float32)):
        dark = Measurement(torch.zeros_like(measurement.y), measurement.mask, measurement.s)
        x = estimated(GUIDANCE[guidance](small_network(torch.float32), dark), dark.y, 6, generator())
        assert x.isfinite().all()


@every
@pytest.mark.parametrize("evaluations", [1, 2, 7])
def test_no_draw_exceeds_its_evaluations(guidance, evaluations):
    at = scene("bayer")
    counted = Counted(at.prior.denoiser)
    posterior = GUIDANCE[guidance](counted, at.measurement)
    if posterior.draw is not None or posterior.denoiser is not None:
        estimated(posterior, at.truth, evaluations, generator())
        assert 1 <= counted.evaluations <= evaluations


@every
def test_windows_change_nothing_that_they_should_not(guidance):
    """Guidance through the denoiser in windows, gradients too: the windows of a pointwise denoiser leave no trace."""
    measurement = measured((3, 18, 24), torch.float64)

    def pointwise(x, sigma):
        return 0.25 / (0.25 + sigma**2) * x + 0.05 * torch.tanh(3 * x)

    through = windowed(pointwise, size=12, overlap=4, multiple=2)
    plain, cut = (estimated(GUIDANCE[guidance](d, measurement), measurement.y, 5, generator()) for d in (pointwise, through))
    torch.testing.assert_close(plain, cut, rtol=1e-9, atol=1e-9)


@every
def test_a_mask_of_bytes_is_as_good_as_one_of_floats(guidance):
    """As `Operator.mask` makes it."""
    floats = measured((3, 12, 12), torch.float32)
    network = small_network(torch.float32)
    found = []
    for mask in (floats.mask, floats.mask.to(torch.uint8)):
        posterior = GUIDANCE[guidance](network, Measurement(floats.y, mask, floats.s))
        found.append([estimated(posterior, floats.y, 6, generator())] + ([posterior.mean()] if posterior.mean else []))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert b.dtype == torch.float32
