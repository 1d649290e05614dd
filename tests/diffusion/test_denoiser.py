"""Preconditioning and loss against the paper's equations (Karras et al. 2022, table 1 and equation 8), written out slowly."""

import math

import pytest
import torch

from lowlight_kedro.diffusion.denoiser import Denoiser, coefficients, denoising_loss, standard_normal
from lowlight_kedro.diffusion.networks import NETWORKS

SD = 0.4  # unlike 0.5, its powers are not each other's neighbours
SHAPE = (2, 3, 4, 4)
UNETS = [name for name in NETWORKS if name not in ("mosaic_net", "experts")]  # those that images of 4 pixels suit


class Pointwise(torch.nn.Module):
    """F = a u + b tanh(c u + d c_noise): every pixel by itself, so that the slow version is one line."""

    def __init__(self):
        super().__init__()
        self.numbers = torch.nn.Parameter(torch.tensor([0.7, -0.4, 1.3, 0.9], dtype=torch.float64))

    def forward(self, scaled, c_noise):
        a, b, c, d = self.numbers
        return a * scaled + b * torch.tanh(c * scaled + d * c_noise)


def slow_denoiser(numbers, x, sigma):
    """D of one pixel: floats in, float out."""
    a, b, c, d = numbers
    scaled, c_noise = x / math.sqrt(sigma**2 + SD**2), math.log(sigma) / 4
    f = a * scaled + b * math.tanh(c * scaled + d * c_noise)
    return SD**2 / (sigma**2 + SD**2) * x + sigma * SD / math.sqrt(SD**2 + sigma**2) * f


def slow_loss(denoise, x0, x, sigma, weight):
    """lambda(sigma) (D(x; sigma) - x0)^2, lambda = (sigma^2 + sd^2) / (sigma sd)^2, the mean of one image's pixels."""
    total = 0.0
    for clean, noisy, level, more in zip(*(t.flatten().tolist() for t in (x0, x, sigma, weight)), strict=True):
        total += more * (level**2 + SD**2) / (level * SD) ** 2 * (denoise(noisy, level) - clean) ** 2
    return total / x0.numel()


@pytest.fixture(params=["level", "map", "weighted map"])
def noisy(request):
    """x0, x, sigma as it is given, and weight; float64."""
    x0 = torch.randn(SHAPE, dtype=torch.float64)
    sigma = torch.exp(torch.randn((2, 1, 1, 1) if request.param == "level" else SHAPE, dtype=torch.float64) * 1.2 - 1.2)
    weight = torch.rand(SHAPE, dtype=torch.float64) * 3 if "weighted" in request.param else 1.0
    return x0, x0 + sigma * torch.randn_like(x0), sigma, weight


def per_image(noisy):
    x0, x, sigma, weight = noisy
    whole = torch.as_tensor(weight, dtype=torch.float64).expand(SHAPE)
    return list(zip(x0, x, sigma.expand(SHAPE), whole, strict=True))


def test_the_loss_and_the_denoiser_are_the_papers(noisy):
    denoiser = Denoiser(Pointwise(), SD)
    numbers = denoiser.network.numbers.tolist()
    slow = [slow_loss(lambda x, s: slow_denoiser(numbers, x, s), *image) for image in per_image(noisy)]
    assert denoising_loss(denoiser, *noisy).tolist() == pytest.approx(slow, rel=1e-10)
    pixels = zip(noisy[1].flatten().tolist(), noisy[2].expand(SHAPE).flatten().tolist(), strict=True)
    expected = [slow_denoiser(numbers, x, sigma) for x, sigma in pixels]
    assert denoiser(noisy[1], noisy[2]).flatten().tolist() == pytest.approx(expected, rel=1e-10)


def test_the_gradient_is_the_slope_of_the_papers_loss(noisy):
    """Central differences of the slow loss, so that nothing of ours is on the other side."""
    denoiser, h = Denoiser(Pointwise(), SD), 1e-5
    denoising_loss(denoiser, *noisy).sum().backward()
    numbers = denoiser.network.numbers.tolist()
    for which, got in enumerate(denoiser.network.numbers.grad.tolist()):
        ends = []
        for step in (h, -h):
            moved = [number + step * (place == which) for place, number in enumerate(numbers)]
            ends.append(sum(slow_loss(lambda x, s, m=moved: slow_denoiser(m, x, s), *image) for image in per_image(noisy)))
        assert got == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", UNETS)
def test_the_loss_of_every_network_is_the_weighted_error_of_its_denoiser(name, noisy):
    denoiser = Denoiser(NETWORKS[name](widths=[8, 16], blocks=1), SD).double()
    for weights in denoiser.parameters():
        torch.nn.init.normal_(weights, std=0.1)
    x0, x, sigma, weight = noisy
    answers = iter(denoiser(x, sigma).flatten().tolist())  # the slow loss visits the pixels in this order
    slow = [slow_loss(lambda *_: next(answers), *image) for image in per_image(noisy)]
    # the pyramid computes its candidates in single precision
    assert denoising_loss(denoiser, x0, x, sigma, weight).tolist() == pytest.approx(slow, rel=1e-4 if name == "pyramid_unet" else 1e-9)


def test_the_networks_input_and_target_have_unit_variance():
    """What c_in and c_out are for: data of standard deviation sd, any level."""
    x0 = SD * torch.randn(100_000, dtype=torch.float64)
    for level in (0.01, 0.4, 5.0):
        sigma = torch.tensor(level, dtype=torch.float64)
        c_skip, c_out, c_in = coefficients(sigma, SD)
        x = x0 + sigma * torch.randn_like(x0)
        assert float((c_in * x).std()) == pytest.approx(1, rel=0.02)
        assert float(((x0 - c_skip * x) / c_out).std()) == pytest.approx(1, rel=0.02)


def test_the_loss_stays_exact_where_there_is_hardly_any_noise():
    """(D - x0) / c_out would lose all digits of single precision at sigma = 1e-6."""
    x0, sigma = torch.randn(SHAPE), torch.full((1, 1, 1, 1), 1e-6)
    exact = denoising_loss(Denoiser(Pointwise(), SD), x0.double(), x0.double(), sigma.double())
    single = denoising_loss(Denoiser(Pointwise().float(), SD), x0, x0, sigma)
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=0)


def test_noise_comes_from_the_generator_it_is_given():
    like = torch.zeros(4, 3, 50, 50)
    first, again, other = (standard_normal(like, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert abs(float(first.mean())) < 5 / first.numel() ** 0.5
    assert float(first.var()) == pytest.approx(1, abs=5 * (2 / first.numel()) ** 0.5)
