"""The second opinion on a mosaic."""

import pytest
import torch

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.networks.experts import CLEAN, HIDDEN, Second, sites_of
from lowlight_kedro.diffusion.prior import build_prior, separated, with_second
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.windows import in_windows
from tests.diffusion.test_experts import BLACK, CFAS, OPTIONS, QUIET, UNKNOWN, WHITE, awake, checkpoint, denoised, measured, state

GENERAL = {"name": "raw_unet", "options": {"widths": [8], "blocks": 1}}
ALONE = {"general": GENERAL, "mosaics": {}, "black": BLACK, "white": WHITE}


def clean_net(mosaic, width=8):
    return awake(NETWORKS["mosaic_net"](mosaic=mosaic, **OPTIONS | {"front": (), "width": width}))


def answered(denoiser, x, sigma, seeds):
    """D, and seeds . dD/dx."""
    leaf = x.clone().requires_grad_()
    answer = denoiser(leaf, sigma)
    answer.backward(seeds)
    return answer.detach(), leaf.grad


@pytest.fixture(scope="module")
def pair():
    """A network that stands alone, and the same with second opinions by untrained gates."""
    torch.manual_seed(0)
    alone = awake(NETWORKS["experts"](**ALONE))
    seconded = NETWORKS["experts"](**ALONE, second={name: {"depth": 3, "gate": 8} for name in CFAS})
    seconded.general.load_state_dict(alone.general.state_dict())
    for second in seconded.second.values():
        awake(second.network)
    return alone, seconded


@pytest.mark.parametrize("mosaic", CFAS)
@pytest.mark.parametrize("start", [(0, 0), (1, 0), (3, 2)])
def test_the_sites_of_a_mosaic_are_found_in_its_phase_though_some_are_missing(mosaic, start):
    whole = measured(mosaic, start=start)
    seen = whole & (torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1)) > 0.2)
    assert torch.equal(sites_of(seen, clean_net(mosaic).pattern), whole)


@pytest.mark.parametrize("mosaic", CFAS)
def test_untrained_it_is_the_mean_of_both_answers_and_measured_values_stay(mosaic):
    torch.manual_seed(0)
    second, mask = Second(clean_net(mosaic), 8), measured(mosaic, start=(1, 2))
    light, sigma = torch.rand(1, 3, 48, 48), torch.where(mask, 0.01, HIDDEN)
    with torch.no_grad():
        answer, other = second(light, sigma, mask), second.network.light(light, torch.where(mask, CLEAN, HIDDEN))
    torch.testing.assert_close(answer, torch.where(mask, light, (light + other) / 2))


@pytest.mark.parametrize("mosaic", CFAS)
def test_it_is_asked_of_its_mosaic_alone_and_each_image_for_itself(pair, mosaic):
    """A batch of a mosaic, of the other one, and of an image that is no mosaic, as they are one by one."""
    alone, seconded = pair
    masks = [measured(mosaic, start=(1, 1)), *(measured(name) for name in CFAS), torch.ones(1, 3, 48, 48, dtype=torch.bool)]
    images = [state(mask, QUIET, seed) for seed, mask in enumerate(masks)]
    apart = [denoised(seconded, *image) for image in images]
    together = denoised(seconded, *(torch.cat(parts) for parts in zip(*images, strict=True)))
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-5)
    for mask, image, answer in zip(masks, images, apart, strict=True):
        before = denoised(alone, *image)
        torch.testing.assert_close(answer[mask], before[mask], atol=1e-5, rtol=1e-5)
        assert torch.allclose(answer, before) == bool(mask.all())


def test_a_measured_value_without_noise_stays_what_it_is(pair):
    mask = measured("bayer")
    x, sigma = state(mask, 1e-5)
    assert (denoised(pair[1], x, sigma) - x)[mask].abs().max() < 1e-3


@pytest.mark.parametrize("mosaic", CFAS)
def test_what_lies_beyond_its_reach_does_not_count(mosaic):
    torch.manual_seed(0)
    second, side = awake(Second(clean_net(mosaic), 8)), 96
    mask = measured(mosaic, side)
    light = torch.rand(1, 3, side, side)
    other = light.clone()
    other[..., : side // 2] = torch.rand(1, 3, side, side // 2)
    sigma = torch.where(mask, 0.01, HIDDEN)
    with torch.no_grad():
        moved = (second(light, sigma, mask) - second(other, sigma, mask)).abs()[..., side // 2 :].amax((0, 1, 2))
    assert moved[second.reach :].max() < 1e-6
    assert moved[0] > 1e-4


def test_an_assembled_prior_is_given_it_and_its_parts_stay_whole():
    experts = awake(NETWORKS["experts"](**ALONE))
    prior = checkpoint(experts, "experts", ALONE, Scaling(-0.8, 0.5))
    whole = with_second(prior, {name: clean_net(name, width=64) for name in CFAS})
    built = build_prior(whole, NETWORKS["experts"](**whole.description["network"]["options"]))
    assert all(torch.equal(whole.tensors[name], tensor) for name, tensor in prior.tensors.items())
    assert set(built.denoiser.network.second) == set(CFAS)
    assert separated(whole, "general").tensors.keys() == separated(prior, "general").tensors.keys()
    mask = measured("bayer")
    x, sigma = torch.where(mask, 0.5, 0.0), torch.where(mask, QUIET, UNKNOWN)
    assert not torch.allclose(denoised(built.denoiser.network, x, sigma), denoised(experts, x, sigma))
    with pytest.raises(ValueError, match="its network is a raw_unet, and only experts can be seconded"):
        with_second(checkpoint(experts.general, **GENERAL, scaling=Scaling(-0.8, 0.5)), {})


@pytest.mark.parametrize("mosaic", CFAS)
def test_of_frames_it_has_windows_of_its_own_and_the_result_and_its_gradient_are_those_of_one_window(pair, mosaic):
    denoiser = Denoiser(pair[1], 0.5)
    x, sigma = state(measured(mosaic, 120, start=(1, 0))[..., :110], QUIET)
    fractions: list[float] = []
    parts = in_windows(denoiser, size=88, on_fraction=fractions.append)
    whole = in_windows(denoiser)
    seeds = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    one, pulled = answered(whole, x, sigma, seeds)
    other, pulled_by_parts = answered(parts, x, sigma, seeds)
    torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pulled_by_parts, pulled, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(one, in_windows(Denoiser(pair[0], 0.5))(x, sigma), atol=1e-4)
    assert sum(fractions) == pytest.approx(1)
    few, many = (in_windows(denoiser, memory_mb=memory_mb) for memory_mb in (16.0, 200.0))
    torch.testing.assert_close(few(x, sigma), many(x, sigma), atol=1e-5, rtol=1e-5)
    assert few.second.pixels[False] * 12.5 == pytest.approx(many.second.pixels[False], rel=0.01)
