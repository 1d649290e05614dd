"""Laws of every network in the table, and of the parts that the papers' networks are made of."""

import math

import pytest
import torch
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.networks.embedded import ADM, DDPMPP, LevelEmbedding, Residual, SelfAttention, group_norm, largest_divisor
from lowlight_kedro.diffusion.networks.pyramid import LocalMeans, compressed
from lowlight_kedro.sensor.cfa import BAYER_RGGB, masks
from lowlight_kedro.sensor.cfa import XTRANS as XTRANS_CFA

SMALL = {"widths": [16, 32], "blocks": 1}
MOSAIC = {"width": 8, "depth": 3, "front": [8, 16], "black": -0.4, "white": 3.6}
BAYER, XTRANS = ({"name": "mosaic_net", "options": MOSAIC | {"mosaic": mosaic}, "fade": [0.05, 0.1]} for mosaic in ("bayer", "xtrans"))
OWN = {  # options of networks that are no U-Nets
    "mosaic_net": MOSAIC | {"mosaic": "bayer"},
    "experts": {
        "general": {"name": "raw_unet", "options": SMALL}, "mosaics": {"bayer": BAYER, "xtrans": XTRANS},
        "black": -0.4, "white": 3.6,
    },
}  # fmt: skip
EMBEDDED = ["adm", "ddpmpp"]
LEVELS = torch.tensor([1e-3, 0.03, 0.5, 3.0, 80.0]).reshape(-1, 1, 1, 1)


def made(name, **options):
    """A denoiser whose every layer does something: the last ones start at zero."""
    net = NETWORKS[name](**OWN.get(name, SMALL) | options)
    for weights in net.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.7 / weights[0].numel() ** 0.5)
        elif not weights.any():
            torch.nn.init.normal_(weights, std=0.1)
    return Denoiser(net, 0.5)


@pytest.fixture(params=[*NETWORKS, "pyramid_unet with details", "mosaic_net with mosaic xtrans"])
def denoiser(request):
    name, _, option = request.param.partition(" with ")
    options = {"": {}, "details": {"details": [[0, 2], [1, 4]]}, "mosaic xtrans": {"mosaic": "xtrans"}}
    return made(name, **options[option])


def sigma_map(*shape):
    """Levels from 1e-3 to 80, all in one image."""
    return torch.exp(torch.rand(*shape) * (math.log(80) - math.log(1e-3)) + math.log(1e-3))


@pytest.mark.parametrize("untrained", [False, True])
def test_without_noise_the_input_comes_back(denoiser, request, untrained):
    if untrained:
        name = request.node.callspec.params["denoiser"].partition(" ")[0]
        denoiser = Denoiser(NETWORKS[name](**OWN.get(name, SMALL)), 0.5)
    x = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(denoiser(x, torch.full((1, 1, 1, 1), 1e-5)), x, atol=1e-3, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_answer_is_finite_for_every_level(denoiser, precision):
    with torch.autocast("cpu", torch.bfloat16, precision == "bf16"), torch.no_grad():
        for sigma in (LEVELS, sigma_map(5, 3, 24, 24)):
            x = torch.randn(5, 3, 24, 24) * (0.25 + sigma**2).sqrt()
            answer = denoiser(x, sigma)
            assert answer.dtype == torch.float32
            assert answer.isfinite().all()
            assert (answer.abs() < 100).all()


def test_bf16_is_the_same_function_to_its_rounding(denoiser):
    x, sigma = torch.randn(2, 3, 24, 24), sigma_map(2, 3, 24, 24)
    exact = denoiser(x, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = denoiser(x, sigma)
    assert 0 < (rounded - exact).norm() < 0.02 * exact.norm()


def test_a_constant_map_is_the_same_as_a_level(denoiser):
    x, level = torch.randn(2, 3, 24, 24), torch.tensor([0.3, 1.0]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(denoiser(x, level.expand(x.shape).contiguous()), denoiser(x, level))


def test_the_network_reads_the_level_and_the_places_of_a_map(denoiser):
    """The network itself, not the preconditioning around it; the two maps have the same levels at other places."""
    scaled, low = torch.randn(1, 3, 24, 24), torch.full((1, 3, 24, 24), -0.3)
    half = low.clone()
    half[..., :8] = 0.2
    answers = [denoiser.network(scaled, c_noise) for c_noise in (low, low + 0.3, half, half.flip(-1))]
    for other in answers[1:]:
        assert (other - answers[0]).abs().max() > 0.01
    assert (answers[3] - answers[2]).abs().max() > 0.01


def test_every_parameter_matters(denoiser):
    bayer, xtrans = (torch.from_numpy(masks(cfa, (24, 24))) for cfa in (BAYER_RGGB, XTRANS_CFA))
    quiet = [torch.where(mask, 0.02, 80.0)[None] for mask in (bayer, xtrans)]  # what the experts are for
    denoiser(torch.randn(4, 3, 24, 24), torch.cat([sigma_map(2, 3, 24, 24), *quiet])).square().sum().backward()
    assert all(weights.grad is not None and weights.grad.abs().max() > 0 for weights in denoiser.parameters())


def test_a_side_that_cannot_be_halved_is_named(denoiser):
    for shape in ((15, 16), (24, 24 + denoiser.network.multiple // 2)):
        with pytest.raises(ValueError, match=rf"multiples of {denoiser.network.multiple} for this network, got \({shape[0]}, {shape[1]}\)"):
            denoiser(torch.randn(1, 3, *shape), torch.ones(1, 1, 1, 1))


def test_channels_last_is_the_same_function(denoiser):
    x, sigma = torch.randn(2, 3, 24, 24), sigma_map(2, 3, 24, 24)
    expected = denoiser(x, sigma)
    got = denoiser.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), sigma)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_an_image_does_not_see_the_others_of_its_batch(denoiser):
    x, sigma = torch.randn(3, 3, 24, 24), sigma_map(3, 3, 24, 24)
    torch.testing.assert_close(denoiser(x, sigma)[1:2], denoiser(x[1:2], sigma[1:2]), atol=1e-5, rtol=1e-4)


# the papers' networks


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize(
    ("width", "multipliers", "blocks", "attention", "millions"),
    [
        (192, [1, 2, 3, 4], 4, [], 308),
        (128, [1, 1, 2, 2, 3, 4], 2, [4], 104),
        (128, [1, 2, 2, 2], 2, [], 39),
        (64, [1, 2, 3, 4], 2, [], 22),
    ],
)
def test_as_many_parameters_as_the_papers_networks(name, width, multipliers, blocks, attention, millions):
    """SongUNet's, measured; ADM of the same numbers has a scale besides each shift, 5 to 8 % more."""
    with torch.device("meta"):
        net = NETWORKS[name](widths=[width * times for times in multipliers], blocks=blocks, attention=attention)
    count = sum(weights.numel() for weights in net.parameters()) / 1e6
    assert count / millions == pytest.approx(1.0 if name == "ddpmpp" else 1.06, abs=0.02)


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_untrained_network_answers_zero_and_takes_a_map_for_its_mean(name):
    net, scaled = NETWORKS[name](**SMALL), torch.randn(2, 3, 16, 16)
    assert not net(scaled, sigma_map(2, 3, 16, 16).log() / 4).any()
    for module in net.modules():  # what else starts at 0, so that all that is told reaches the answer
        for layer in ("last", "conv_out", "out"):
            if hasattr(module, layer):
                torch.nn.init.normal_(getattr(module, layer).weight, std=0.1)
    c_noise = sigma_map(2, 3, 16, 16).log() / 4
    mean = c_noise.mean(dim=(1, 2, 3), keepdim=True).expand(c_noise.shape)
    torch.testing.assert_close(net(scaled, c_noise), net(scaled, mean), atol=1e-4, rtol=1e-3)
    assert (net(scaled, mean + 0.1) - net(scaled, mean)).abs().max() > 0.01


@pytest.mark.parametrize("name", EMBEDDED)
def test_attention_is_where_it_is_asked_for(name):
    net = NETWORKS[name](widths=[16, 16, 32], blocks=2, attention=[1])
    attends = {way: [isinstance(block.attention, SelfAttention) for block in getattr(net, way)] for way in ("down", "middle", "up")}
    assert attends["middle"] == [True, False]
    assert attends["down"] == [False, False, False, True, True, False, False, False]
    of_level_1 = [False, True, True, True] if name == "adm" else [False, False, False, True]
    assert attends["up"] == [False, False, False, *of_level_1, False, False, False, False]
    with pytest.raises(ValueError, match=r"attention must name levels in 0 ... 2, got \[3\]"):
        NETWORKS[name](widths=[16, 16, 32], blocks=2, attention=[3])


@pytest.mark.parametrize(("manner", "steps"), [(DDPMPP, 3), (ADM, 4)])
def test_level_features_are_the_waves_they_say(manner, steps):
    levels, seen = torch.tensor([-1.5, 0.2], dtype=torch.float64), []
    embedding = LevelEmbedding(8, manner).double()
    embedding.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    embedding(levels)
    for row, level in zip(seen[0].tolist(), levels.tolist(), strict=True):
        angles = [level * 10_000 ** (-k / steps) for k in range(4)]
        assert row == pytest.approx([*map(math.sin, angles), *map(math.cos, angles)])


def test_groups_divide_every_width():
    assert [largest_divisor(144, 32), largest_divisor(7, 3), largest_divisor(64, 32), largest_divisor(6, 100)] == [24, 1, 32, 6]
    for width in (1, 6, 24, 96, 144, 384):
        norm = group_norm(width, 1e-5)
        assert norm.num_groups <= 32
        assert width / norm.num_groups >= 4 or norm.num_groups == 1


def slow_norm(x, norm):
    """GroupNorm from its definition: mean and variance over each group of channels and all pixels."""
    out = torch.empty_like(x)
    size = x.shape[1] // norm.num_groups
    for image in range(len(x)):
        for start in range(0, x.shape[1], size):
            group = x[image, start : start + size]
            out[image, start : start + size] = (group - group.mean()) / (group.var(correction=0) + norm.eps) ** 0.5
    return out * norm.weight[:, None, None] + norm.bias[:, None, None]


def slow_attention(x, layer, head):
    """softmax(q k / sqrt(d)) v, one image, one head and one pixel at a time."""
    qkv, mixed = F.conv2d(slow_norm(x, layer.norm), layer.qkv.weight, layer.qkv.bias), torch.empty_like(x)
    for image in range(len(x)):
        query, key, value = qkv[image].flatten(1).chunk(3)
        for start in range(0, x.shape[1], head):
            channels = slice(start, start + head)
            for pixel in range(query.shape[1]):
                weights = torch.exp(query[channels, pixel] @ key[channels] / head**0.5)
                mixed[image].flatten(1)[channels, pixel] = value[channels] @ (weights / weights.sum())
    return x + F.conv2d(mixed, layer.out.weight, layer.out.bias)


def silu(x):
    return x / (1 + torch.exp(-x))


SLOW_RESIZE = {
    "keep": lambda x: x,
    "halve": lambda x: (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4,
    "double": lambda x: x.repeat_interleave(2, -1).repeat_interleave(2, -2),
}


@pytest.mark.parametrize("resize", SLOW_RESIZE)
@pytest.mark.parametrize(("manner", "epsilon", "head"), [(DDPMPP, 1e-6, 128), (ADM, 1e-5, 64)])
@pytest.mark.parametrize("inputs", [24, 128])
def test_a_block_is_the_papers_written_out(manner, epsilon, head, resize, inputs):
    """Song et al. 2021, appendix H, and Dhariwal & Nichol 2021, section 3, in float64."""
    block = Residual(inputs, 128, 6, manner, resize=resize, attends=True).double()
    x, told = torch.randn(2, inputs, 4, 4, dtype=torch.float64) * 0.01, torch.randn(2, 6, dtype=torch.float64)
    assert {norm.eps for norm in block.modules() if isinstance(norm, torch.nn.GroupNorm)} == {epsilon}
    resized, (first, second) = SLOW_RESIZE[resize], (block.conv_in, block.conv_out)
    with torch.no_grad():
        hidden = F.conv2d(resized(silu(slow_norm(x, block.norm_in))), first.weight, first.bias, padding=1)
        spoken = (told @ block.tell.weight.T + block.tell.bias)[:, :, None, None]
        if manner is ADM:
            hidden = slow_norm(hidden, block.norm_out) * (1 + spoken[:, :128]) + spoken[:, 128:]
        else:
            hidden = slow_norm(hidden + spoken, block.norm_out)
        hidden = F.conv2d(silu(hidden), second.weight, second.bias, padding=1)
        projected = inputs != 128 or (manner is DDPMPP and resize != "keep")
        kept = F.conv2d(resized(x), block.skip.weight, block.skip.bias) if projected else resized(x)
        scale = 0.5**0.5 if manner is DDPMPP else 1.0
        expected = slow_attention((kept + hidden) * scale, block.attention, head) * scale
        torch.testing.assert_close(block(x, told), expected)


def test_the_decoder_is_given_what_the_encoder_left_at_the_same_resolution():
    net = made("adm", widths=[16, 24, 32]).network
    left, taken = [], []
    net.first.register_forward_hook(lambda _, __, out: left.append(out))
    for block in net.down:
        block.register_forward_hook(lambda _, __, out: left.append(out))
    for block in net.up:
        if block.resize == "keep":
            block.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    net(torch.randn(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    assert len(left) == len(taken) == 6
    for kept, given in zip(reversed(left), taken, strict=True):
        assert torch.equal(given[:, -kept.shape[1] :], kept)


# the pyramid


def test_an_untrained_pyramid_already_smooths():
    """The candidates average where the image is flat, so noise falls before any training."""
    denoiser, noise = Denoiser(NETWORKS["pyramid_unet"](**SMALL), 0.5), torch.randn(1, 3, 64, 64) * 0.3
    assert denoiser(noise, torch.full((1, 1, 1, 1), 0.3)).std() < 0.5 * noise.std()


SD = 0.5


@pytest.mark.parametrize("reach", [1, 2, 3, 8])
def test_local_means_are_the_posterior_of_a_flat_region(rng, reach):
    """Pixel by pixel, borders included: the values of the window and N(0, sd^2), weighted by their precision."""
    x, sigma = (torch.from_numpy(rng.uniform(0.1, 1, (1, 2, 27, 29))) for _ in range(2))
    local = LocalMeans(x, sigma, SD)
    for row, column in ((0, 0), (13, 14), (26, 28), (5, 1)):
        where = (0, 1, slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1))
        weights = 1 / sigma[where] ** 2
        torch.testing.assert_close(local.mean(reach)[0, 1, row, column], (weights * x[where]).sum() / (weights.sum() + SD**-2))
        torch.testing.assert_close(local.precision(reach)[0, 1, row, column], weights.mean())


@pytest.mark.parametrize(("fine", "coarse"), [(0, 2), (1, 4)])
def test_detail_that_all_channels_share_is_kept_from_whichever_measured_it(rng, fine, coarse):
    """x_c = a_c + t: with equal noise, little of it, the estimate is a_c + the mean of t over the fine window, whatever the coarse one."""
    shared, offsets = (
        torch.from_numpy(rng.normal(size=(1, 1, 20, 20))),
        torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64).reshape(1, 3, 1, 1),
    )
    even = LocalMeans(shared + offsets, torch.full((1, 3, 20, 20), 1e-4, dtype=torch.float64), SD)
    inner = (..., slice(coarse, -coarse), slice(coarse, -coarse))
    wanted = LocalMeans(shared, torch.full_like(shared, 1e-4), SD).mean(fine) + offsets
    torch.testing.assert_close(even.with_detail(fine, coarse)[inner], wanted[inner], rtol=1e-4, atol=1e-4)


def test_a_quiet_channel_gives_its_detail_to_those_that_are_unknown(rng):
    x, sigma = torch.from_numpy(rng.normal(size=(1, 3, 12, 12))), torch.full((1, 3, 12, 12), 1e3, dtype=torch.float64)
    sigma[:, 1] = 1e-3
    local = LocalMeans(x, sigma, SD)
    detail = local.with_detail(0, 2) - local.mean(2)
    torch.testing.assert_close(detail, (x[:, 1:2] - local.mean(2)[:, 1:2]).expand_as(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("light", [-0.5, 0.0, 3.7, 20.0])
@pytest.mark.parametrize("chosen", [1, 2, 3])
def test_an_estimate_that_is_chosen_is_the_answer_however_bright(chosen, light):
    """A flat mosaic in the shadows or far above the data: nothing on the way from estimate to answer may bend it, measured site or not."""
    net = NETWORKS["pyramid_unet"](**SMALL, reaches=[1, 2, 4])
    logits = torch.zeros(3 * 5)
    logits[3 * chosen : 3 * chosen + 3] = 60.0  # of the gates; the last three are R
    net.unet.trunk = lambda hidden: logits.reshape(1, -1, 1, 1).expand(1, -1, 32, 32)
    sigma = torch.full((1, 3, 32, 32), 80.0)
    for channel, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        sigma[:, channel, row::2, column::2] = 0.01
    answer = Denoiser(net, SD)(torch.where(sigma < 1, light, 0.0), sigma)
    torch.testing.assert_close(answer, torch.full_like(answer, light), rtol=1e-3, atol=1e-4)


def test_what_the_network_adds_is_measured_in_what_can_be_known():
    """c_out where a value was measured; where it was not, what its neighbours tell, and all of the data's spread if nobody does."""
    net = NETWORKS["pyramid_unet"](**SMALL)
    c_out = torch.tensor([1e-3, 0.3, 0.4999])

    def scale(noise_nearby):
        return net.error_scale(c_out, torch.tensor(noise_nearby**-2))

    known = 0.3**2 * SD**2 / (0.3**2 + SD**2)
    torch.testing.assert_close(scale(0.3)[1:], torch.tensor([min(0.3, (known + 0.01) ** 0.5), (known + 0.01) ** 0.5]))
    assert scale(1e-3)[0] == c_out[0]
    torch.testing.assert_close(scale(1e-3)[2], torch.tensor(0.1), rtol=1e-3, atol=0)
    torch.testing.assert_close(scale(80.0), c_out)


def test_differences_are_compressed_in_order_and_within_bounds():
    x = torch.linspace(-1e5, 1e5, 10001)
    assert (compressed(x).diff() > 0).all()
    assert compressed(x).abs().max() < 16
    torch.testing.assert_close(compressed(torch.tensor(1e-3)), torch.tensor(1e-3), rtol=1e-3, atol=0)
