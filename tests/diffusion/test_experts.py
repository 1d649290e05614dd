"""The network for mosaics, and several networks as one."""

import pytest
import torch

from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.networks.experts import follows, noise_seen
from lowlight_kedro.diffusion.networks.mosaic import light_of, phases, shown
from lowlight_kedro.diffusion.prior import assembled, build_prior, separated
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks

CFAS = {"bayer": BAYER_RGGB, "xtrans": XTRANS}
UNKNOWN = 80.0
BLACK, WHITE = -0.4, 3.6
QUIET, LOUD = 0.02, 1.5
BACKWARDS = {"name": "raw_unet", "options": {"widths": [8], "blocks": 1}, "fade": [0.1, 0.05]}
OPTIONS = {"width": 8, "depth": 3, "front": [8, 8], "black": BLACK, "white": WHITE}


def awake(network):
    """Every layer does something: the last ones start at zero."""
    for weights in network.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.2)
    return network


def mosaic_net(mosaic):
    return awake(NETWORKS["mosaic_net"](mosaic=mosaic, **OPTIONS))


@pytest.fixture(scope="module")
def experts():
    torch.manual_seed(0)
    own = {name: {"name": "mosaic_net", "options": OPTIONS | {"mosaic": name}, "fade": [0.05, 0.1]} for name in CFAS}
    general = {"name": "raw_unet", "options": {"widths": [8], "blocks": 1}}
    return awake(NETWORKS["experts"](general=general, mosaics=own, black=BLACK, white=WHITE))


def measured(mosaic, side=48, start=(0, 0)):
    whole = torch.from_numpy(masks(CFAS[mosaic], (side + 6, side + 6)))
    return whole[None, :, start[0] : start[0] + side, start[1] : start[1] + side]


def state(mask, sigma, seed=0):
    """x, and sigma where `mask` is; x around mid light, without detail, so that its noise is the same everywhere."""
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(mask, 0.6 + 0.01 * noise, 0.0), torch.where(mask, sigma, UNKNOWN)


def denoised(network, x, sigma):
    with torch.no_grad():
        return Denoiser(network, 0.5)(x, sigma)


def test_the_shown_scale_is_odd_rising_and_has_an_inverse():
    light = torch.linspace(-1.5, 4, 2001).double()
    torch.testing.assert_close(light_of(shown(light)), light, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(shown(-light), -shown(light))
    assert (shown(light).diff() > 0).all()
    torch.testing.assert_close(shown(torch.tensor(0.25)), torch.tensor(0.5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("mosaic", CFAS)
def test_the_phase_of_a_mosaic_is_found_though_sites_are_missing(mosaic):
    pattern = mosaic_net(mosaic).pattern
    for start in ((0, 0), (0, 1), (1, 0), (3, 2)):
        whole = measured(mosaic, start=start)
        row, column = phases(whole & (torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1)) > 0.2), pattern)[0]
        side = len(pattern)
        assert torch.equal(whole[0, :, row : row + side, column : column + side].int().argmax(0), pattern)


def test_a_bayer_mosaic_may_begin_in_any_phase():
    """With cells of 2 x 2 alone, so that every shift leaves them where they are in the pattern."""
    network, mask, edge = awake(NETWORKS["mosaic_net"](mosaic="bayer", **OPTIONS | {"front": [8]})), measured("bayer", 66), 20
    x, sigma = state(mask, QUIET)
    x = x + 0.3 * torch.rand(1, 1, 66, 66) * mask
    whole = denoised(network, x[..., :60, :60], sigma[..., :60, :60])
    for row, column in ((0, 1), (1, 0), (1, 1)):
        moved = denoised(network, *(part[..., row : row + 60, column : column + 60] for part in (x, sigma)))
        inside = moved[..., edge - row : 40 - row, edge - column : 40 - column]
        torch.testing.assert_close(inside, whole[..., edge:40, edge:40], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mosaic", CFAS)
def test_values_that_were_not_measured_do_not_count_and_others_move_little(mosaic):
    network, mask = mosaic_net(mosaic), measured(mosaic)
    x, sigma = state(mask, QUIET)
    answer = denoised(network, x, sigma)
    torch.testing.assert_close(denoised(network, torch.where(mask, x, 7.0), sigma), answer, atol=1e-4, rtol=1e-4)
    assert (answer - x)[mask].abs().max() <= 8 * QUIET * 1.001


@pytest.mark.parametrize("mosaic", CFAS)
def test_a_mosaic_is_known_by_what_was_measured(mosaic):
    pattern = mosaic_net(mosaic).pattern
    other = measured(next(name for name in CFAS if name != mosaic))
    mine, dead = measured(mosaic, start=(1, 0)), measured(mosaic)
    dead = dead & (torch.rand(1, 1, 48, 48) > 0.01)
    both = torch.cat([mine, other, dead, torch.ones_like(mine), torch.zeros_like(mine)])
    assert follows(both, pattern).tolist() == [True, False, True, False, False]


def test_noise_is_judged_by_how_it_is_seen():
    mask = measured("bayer")
    for light, sigma in ((0.25, 0.02), (1.0, 0.04), (0.0, 0.001)):
        seen = noise_seen(torch.full(mask.shape, light), torch.where(mask, sigma, 20.0), mask)
        torch.testing.assert_close(seen, torch.full_like(seen, sigma / (light + 1e-3) ** 0.5))


def test_each_network_answers_where_it_works_best(experts):
    for mosaic in CFAS:
        for start in ((0, 0), (1, 1)):
            mask = measured(mosaic, start=start)
            for sigma, expected in ((QUIET, experts.mosaics[mosaic].network), (LOUD, experts.general)):
                torch.testing.assert_close(denoised(experts, *state(mask, sigma)), denoised(expected, *state(mask, sigma)))
    rgb = torch.randn(2, 3, 48, 48), torch.full((2, 3, 48, 48), QUIET)
    torch.testing.assert_close(denoised(experts, *rgb), denoised(experts.general, *rgb))


def test_between_them_one_fades_into_the_other(experts):
    mask = measured("bayer", 96)
    x, _ = state(mask, QUIET)
    sigma = torch.where(mask, torch.logspace(-2, 0.2, 96).expand(1, 3, 96, 96), UNKNOWN)
    answer, quiet, loud = (denoised(network, x, sigma) for network in (experts, experts.mosaics["bayer"].network, experts.general))
    weight = experts.weights(x / (sigma.square() + 0.25).sqrt(), sigma.log() / 4)["bayer"]
    torch.testing.assert_close(answer, weight * quiet + (1 - weight) * loud, atol=1e-4, rtol=1e-4)
    assert (weight[..., :8] == 1).all()
    assert (weight[..., -8:] == 0).all()
    assert ((weight > 0.01) & (weight < 0.99)).any()
    assert weight.diff(dim=-1).abs().max() < 0.2


def test_only_what_counts_is_evaluated(experts):
    counts = {"general": 0, "bayer": 0, "xtrans": 0}
    hooks = []
    for name, network in {"general": experts.general, **{name: expert.network for name, expert in experts.mosaics.items()}}.items():
        hooks.append(network.register_forward_hook(lambda module, inputs, out, name=name: counts.update({name: counts[name] + len(out)})))
    loud, quiet = state(measured("bayer"), LOUD), state(measured("bayer"), QUIET)
    denoised(experts, torch.cat([loud[0], quiet[0], loud[0]]), torch.cat([loud[1], quiet[1], loud[1]]))
    for hook in hooks:
        hook.remove()
    assert counts == {"general": 2, "bayer": 1, "xtrans": 0}


def checkpoint(network, name, options, scaling):
    description = {
        "format": 1, "network": {"name": name, "options": options}, "corruption": {"name": "noise_map", "options": {}},
        "scaling": vars(scaling), "sigma_data": 0.5,
    }  # fmt: skip
    return Checkpoint(network.state_dict(), description)


def test_priors_trained_apart_are_one_in_the_units_of_the_general_one():
    """Light and its noise are the same in both units; so is the answer in light."""
    own, wanted = Scaling(-0.87, 0.45), Scaling(-0.8, 0.5)
    options = OPTIONS | {"mosaic": "bayer", "black": own.to_network(-1.0), "white": own.to_network(1.0)}
    small, unet = awake(NETWORKS["mosaic_net"](**options)), {"widths": [8], "blocks": 1}
    general = checkpoint(awake(NETWORKS["raw_unet"](**unet)), "raw_unet", unet, wanted)
    whole = assembled(general, {"bayer": (checkpoint(small, "mosaic_net", options, own), (0.05, 0.1))})
    built = build_prior(whole, NETWORKS["experts"](**whole.description["network"]["options"]))
    assert built.scaling == wanted
    for part, apart in (("general", general), ("bayer", checkpoint(small, "mosaic_net", {}, wanted))):
        again = separated(whole, part)
        assert all(torch.equal(again.tensors[name], tensor) for name, tensor in apart.tensors.items())
        assert len(again.tensors) == len(apart.tensors)
        assert separated(again, part) is again
    with pytest.raises(ValueError, match="has no network 'xtrans'; it has general, bayer"):
        separated(whole, "xtrans")

    mask, light = measured("bayer"), 0.25 + 0.01 * torch.randn(1, 3, 48, 48)
    answers = []
    for denoiser, scaling in ((Denoiser(small, 0.5), own), (built.denoiser, wanted)):
        x = torch.where(mask, scaling.to_network(2 * light - 1), 0.0)
        with torch.no_grad():
            answers.append(scaling.to_tile(denoiser(x, torch.where(mask, 0.01 / scaling.scale, UNKNOWN))))
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=1e-4)
    elsewhere = checkpoint(awake(NETWORKS["raw_unet"](**unet)), "raw_unet", unet, own)
    with pytest.raises(ValueError, match="a raw_unet must be trained in the units of the general prior"):
        assembled(general, {"bayer": (elsewhere, (0.05, 0.1))})
    with pytest.raises(ValueError, match="fade 0 < from < to, got 'bayer', "):
        NETWORKS["experts"](**whole.description["network"]["options"] | {"mosaics": {"bayer": BACKWARDS}})
