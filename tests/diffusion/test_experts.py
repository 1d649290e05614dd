"""Several networks as one, and second opinions."""

import pytest
import torch

from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.networks.experts import CLEAN, HIDDEN, Second, follows, nearer, noise_seen, sites_of
from lowlight_kedro.diffusion.networks.mosaic import light_of, phases, shown
from lowlight_kedro.diffusion.prior import assembled, build_prior, separated, with_second
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.symmetries import turned, turned_back
from lowlight_kedro.restoration.windows import in_windows
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


def test_the_front_alone_is_trained_where_that_is_asked_for_and_where_there_is_one():
    network = NETWORKS["mosaic_net"](mosaic="bayer", **OPTIONS, trained="front")
    assert {name.split(".")[0] for name, weights in network.named_parameters() if weights.requires_grad} == {"front"}
    for options in (OPTIONS | {"front": (), "trained": "front"}, OPTIONS | {"trained": "rear"}):
        with pytest.raises(ValueError, match=r"trained must be all, or front where there is one, got .*; set it to all"):
            NETWORKS["mosaic_net"](mosaic="bayer", **options)


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
    seconded = NETWORKS["experts"](
        **ALONE, second={"bayer": {"depth": 3, "gate": 0, "turns": 4}, "xtrans": {"depth": 3, "gate": 8, "turns": 2}}
    )
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
@pytest.mark.parametrize(("off", "kept"), [(0.0, 1.0), (3.0, 0.15), (10.0, 0.015)])
def test_what_a_mean_misses_of_the_measurement_by_more_than_noise_is_given_back(mosaic, off, kept):
    """Off by noise alone it stays; a miss of `off` standard deviations keeps 1.5 / (1 + off^2) of itself; unmeasured values stay."""
    mask, generator = measured(mosaic, 96), torch.Generator().manual_seed(0)
    light, level = torch.rand(1, 3, 96, 96, generator=generator), 0.01
    sigma = torch.where(mask, level, UNKNOWN)
    x = light + level * torch.randn(light.shape, generator=generator)
    mean = light + off * level
    found = nearer(mean, x, sigma)
    assert torch.equal(found[~mask], mean[~mask])
    assert (found - x)[mask].abs().mean() / (mean - x)[mask].abs().mean() == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("mosaic", CFAS)
@pytest.mark.parametrize("shape", [(48, 48), (48, 72)])
@pytest.mark.parametrize(("turns", "turn", "same"), [(4, 3, True), (4, 4, True), (4, 7, True), (2, 3, True), (2, 4, False), (1, 3, False)])
def test_asked_of_turned_copies_it_turns_with_its_image(mosaic, shape, turns, turn, same):
    """Upside down, or with rows for columns, every mosaic is the same one in another phase, and the answer the same turned."""
    torch.manual_seed(0)
    second, mask = Second(clean_net(mosaic), 0, (0.5, 1.0), turns), measured(mosaic, 72, start=(1, 0))[..., : shape[0], : shape[1]]
    images = torch.rand(1, 3, *shape), torch.where(mask, 0.01, HIDDEN), mask
    with torch.no_grad():
        apart = (second(*images) - turned_back(second(*(turned(image, turn) for image in images)), turn)).abs().max()
    assert (apart < 1e-5) == same


def test_it_is_asked_of_turned_copies_as_far_as_the_mosaic_is_quiet():
    """Each image and each place for itself: loud ones as if asked once, quiet ones as if that were everywhere."""
    torch.manual_seed(0)
    network, mask = clean_net("bayer"), measured("bayer", 96)
    several, once = Second(network, 0, (0.02, 0.04), 4), Second(network, 0)
    light, noise = torch.rand(2, 3, 96, 96) / 2 + 0.5, torch.full((2, 3, 96, 96), 0.1)
    noise[1, ..., 48:] = 0.001
    sigma, masks_ = torch.where(mask, noise, HIDDEN), mask.expand(2, -1, -1, -1)
    with torch.no_grad():
        answer, loud = several(light, sigma, masks_), once(light, sigma, masks_)
        calm = several(light, torch.where(mask, 0.001, HIDDEN).expand(2, -1, -1, -1), masks_)
    torch.testing.assert_close(answer[0], loud[0])
    torch.testing.assert_close(answer[1, ..., :32], loud[1, ..., :32])
    torch.testing.assert_close(answer[1, ..., 64:], calm[1, ..., 64:])
    assert not torch.allclose(calm, loud, atol=1e-4)


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
        before, mosaic_only = denoised(alone, *image), not mask.all()
        kept = nearer(before, *image) if mosaic_only else before
        torch.testing.assert_close(answer[mask], kept[mask], atol=1e-5, rtol=1e-5)
        assert torch.allclose(answer, before) != mosaic_only


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
    parts = in_windows(denoiser, size=96, on_fraction=fractions.append)
    whole = in_windows(denoiser)
    seeds = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    one, pulled = answered(whole, x, sigma, seeds)
    other, pulled_by_parts = answered(parts, x, sigma, seeds)
    torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pulled_by_parts, pulled, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(one, in_windows(Denoiser(pair[0], 0.5))(x, sigma), atol=1e-4)
    assert sum(fractions) == pytest.approx(1)
    fractions.clear()
    torch.testing.assert_close(parts.first(x, sigma), in_windows(Denoiser(pair[0], 0.5))(x, sigma), atol=1e-5, rtol=1e-5)
    assert sum(fractions) == pytest.approx(1)
    few, many = (in_windows(denoiser, memory_mb=memory_mb) for memory_mb in (20.0, 200.0))
    torch.testing.assert_close(few(x, sigma), many(x, sigma), atol=1e-5, rtol=1e-5)
    assert few.second.pixels[False] * 10 == pytest.approx(many.second.pixels[False], rel=0.01)
