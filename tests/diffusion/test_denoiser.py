import pytest
import torch

from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.networks.pyramid import LocalMeans

SMALL = {"widths": [8, 16], "blocks": 1}


@pytest.fixture(params=NETWORKS)
def denoiser(request):
    denoiser = Denoiser(NETWORKS[request.param](**SMALL), 0.5)
    for weights in denoiser.parameters():  # the last layers start at zero
        torch.nn.init.normal_(weights, std=0.1)
    return denoiser


def test_without_noise_the_input_comes_back(denoiser):
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(denoiser(x, torch.full((1, 1, 1, 1), 1e-5)), x, atol=1e-3, rtol=0)


def test_a_constant_map_is_the_same_as_a_level(denoiser):
    x, level = torch.randn(2, 3, 16, 16), torch.tensor([0.3, 1.0]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(denoiser(x, level.expand(x.shape).contiguous()), denoiser(x, level))


def test_every_parameter_matters(denoiser):
    denoiser(torch.randn(1, 3, 16, 16), torch.ones(1, 1, 1, 1)).square().sum().backward()
    assert all(weights.grad is not None and weights.grad.abs().max() > 0 for weights in denoiser.parameters())


def test_a_side_that_cannot_be_halved_is_named(denoiser):
    with pytest.raises((ValueError, RuntimeError), match=r"multiples of|height to be divisible"):
        denoiser(torch.randn(1, 3, 15, 16), torch.ones(1, 1, 1, 1))


def test_the_loss_is_edms_weighted_error_of_the_denoiser(denoiser):
    """Against the paper's equation 2 written out pixel by pixel from D itself, in float64."""
    denoiser = denoiser.double()
    x0 = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    sigma = torch.rand(2, 3, 8, 8, dtype=torch.float64) + 0.2
    x = x0 + sigma * torch.randn_like(x0)
    d = denoiser(x, sigma)
    slow = [
        sum(
            (s.item() ** 2 + 0.25) / (s.item() * 0.5) ** 2 * (a.item() - b.item()) ** 2
            for s, a, b in zip(sigma[i].flatten(), d[i].flatten(), x0[i].flatten(), strict=True)
        ) / x0[i].numel()
        for i in range(2)
    ]  # fmt: skip
    # the pyramid computes its candidates in single precision
    torch.testing.assert_close(denoising_loss(denoiser, x0, x, sigma), torch.tensor(slow, dtype=torch.float64), rtol=1e-4, atol=0)


def test_an_untrained_pyramid_already_smooths():
    """The candidates average where the image is flat, so noise falls before any training."""
    denoiser, noise = Denoiser(NETWORKS["pyramid_unet"](**SMALL), 0.5), torch.randn(1, 3, 64, 64) * 0.3
    assert denoiser(noise, torch.full((1, 1, 1, 1), 0.3)).std() < 0.5 * noise.std()


@pytest.mark.parametrize("reach", [1, 2, 3, 8])
def test_precision_weighted_means_are_the_sums_they_say(rng, reach):
    """Pixel by pixel, borders included."""
    x, sigma = (torch.from_numpy(rng.uniform(0.1, 1, (1, 2, 27, 29))) for _ in range(2))
    got = LocalMeans(x, sigma).mean(reach)
    for row, column in ((0, 0), (13, 14), (26, 28), (5, 1)):
        where = (0, 1, slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1))
        expected = (x[where] / sigma[where] ** 2).sum() / (1 / sigma[where] ** 2).sum()
        torch.testing.assert_close(got[0, 1, row, column], expected)


@pytest.mark.parametrize(("fine", "coarse"), [(0, 2), (1, 4)])
def test_detail_that_all_channels_share_is_kept_from_whichever_measured_it(rng, fine, coarse):
    """x_c = a_c + t: with equal noise the estimate is a_c + the mean of t over the fine window, whatever the coarse one."""
    shared, offsets = (
        torch.from_numpy(rng.normal(size=(1, 1, 20, 20))),
        torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64).reshape(1, 3, 1, 1),
    )
    even = LocalMeans(shared + offsets, torch.full((1, 3, 20, 20), 0.2, dtype=torch.float64))
    inner = (..., slice(coarse, -coarse), slice(coarse, -coarse))
    wanted = LocalMeans(shared, torch.full_like(shared, 0.2)).mean(fine) + offsets
    torch.testing.assert_close(even.with_detail(fine, coarse)[inner], wanted[inner], rtol=1e-4, atol=1e-4)


def test_a_quiet_channel_gives_its_detail_to_those_that_are_unknown(rng):
    x, sigma = torch.from_numpy(rng.normal(size=(1, 3, 12, 12))), torch.full((1, 3, 12, 12), 1e3, dtype=torch.float64)
    sigma[:, 1] = 0.1
    local = LocalMeans(x, sigma)
    detail = local.with_detail(0, 2) - local.mean(2)
    torch.testing.assert_close(detail, (x[:, 1:2] - local.mean(2)[:, 1:2]).expand_as(x), rtol=1e-3, atol=1e-3)
