import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.memory import LiveBytes
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.restoration.placement import BLEND, Span, bytes_per_pixel, effective_reach, place, reflected, side_of, spans
from lowlight_kedro.restoration.windows import windowed
from lowlight_kedro.sensor.cfa import BAYER_RGGB, masks

ONE = torch.ones(1, 1, 1, 1)
REACH = 3  # of `local`


def local(x, sigma):
    """A denoiser that sees 7 x 7 pixels and the level at the middle one."""
    side = 2 * REACH + 1
    return F.avg_pool2d(x, side, stride=1, padding=REACH) * sigma + 0.1 * x**2


def same(x, sigma):
    return x


def network(widths=(8, 12), blocks=1):
    """A prior whose every layer does something, in float64."""
    net = NETWORKS["pyramid_unet"](widths=list(widths), blocks=blocks)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.7 / module.weight[0].numel() ** 0.5)
    return Denoiser(net.double(), 0.5).requires_grad_(False)


def mosaic_state(shape):
    """What the noise-map prior reads: values and levels at measured sites, unknown elsewhere."""
    mask = torch.from_numpy(masks(BAYER_RGGB, shape))[None]
    smooth = F.interpolate(torch.randn(1, 3, 6, 6, dtype=torch.float64), shape, mode="bicubic")
    s = 0.1 + 0.2 * torch.rand(1, 3, *shape, dtype=torch.float64)
    return torch.where(mask, smooth + s * torch.randn_like(s), 0.0), torch.where(mask, s, 80.0)


# placement


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("overlap", [0, 8, 24, 64])
@pytest.mark.parametrize("length", [5, 33, 100, 517])
def test_weights_add_up_to_one_and_windows_share_what_they_must(length, overlap, multiple):
    for count in (1, 2, 3, 5):
        if count > 1 and side_of(length, count, overlap, multiple) < overlap + max(multiple, min(BLEND, overlap)):
            continue
        found = spans(length, count, overlap, multiple)
        total = torch.zeros(length, dtype=torch.float64)
        for span in found:
            assert span.start <= span.first
            assert span.last <= span.stop
            assert span.start % multiple == (span.stop - span.start) % multiple == 0
            total[span.first : span.last] += span.weight
        torch.testing.assert_close(total, torch.ones_like(total))
        assert all(before.stop - after.start >= overlap for before, after in pairwise(found))
        margin = (overlap - min(BLEND, overlap)) // 2
        assert all(span.first - span.start >= margin for span in found[1:])
        assert all(span.stop - span.last >= margin for span in found[:-1])


@pytest.mark.parametrize(("shape", "pixels", "overlap"), [((400, 600), 10_000, 32), ((4000, 6000), 600_000, 112), ((90, 6000), 20_000, 40)])
def test_placements_keep_to_their_pixels_and_none_of_its_kind_is_cheaper(shape, pixels, overlap):
    placement = place(shape, pixels=pixels, overlap=overlap, multiple=8)
    height, width = placement.side
    assert height * width <= pixels
    squares = int(pixels**0.5) // 8 * 8
    counts = [max(1, -(-(length - overlap) // (squares - overlap))) for length in shape]
    assert len(placement.windows) * height * width <= counts[0] * counts[1] * squares**2
    assert place(shape, pixels=pixels, overlap=overlap, multiple=8, most=height - 8).side[0] < height


def test_windows_that_cannot_hold_their_overlap_say_so():
    with pytest.raises(
        ValueError, match=r"overlap by 64 and have at most 3000 pixels: the smallest have 6400; raise inference\.window\.memory_mb"
    ):
        place((400, 600), pixels=3000, overlap=64, multiple=8)
    with pytest.raises(ValueError, match=r"sides of at most 64; raise inference\.window\.size"):
        place((400, 600), pixels=30000, overlap=64, multiple=8, most=64)


def test_beyond_the_frame_a_bayer_mosaic_goes_on_in_its_own_phase():
    mask = torch.from_numpy(masks(BAYER_RGGB, (11, 11)))
    index = reflected(Span(0, 16, 0, 11, torch.ones(11)), 11)
    torch.testing.assert_close(mask[:, index][..., index], torch.from_numpy(masks(BAYER_RGGB, (16, 16))))
    assert reflected(Span(0, 8, 0, 1, torch.ones(1)), 1).eq(0).all()
    assert reflected(Span(0, 8, 0, 3, torch.ones(3)), 3).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


# the frame


@pytest.mark.parametrize("shape", [(40, 56), (33, 47), (100, 12), (1, 1), (3, 70)])
def test_windows_of_a_denoiser_that_copies_give_the_frame_back(shape):
    x = torch.randn(2, 3, *shape)
    before = x.clone()
    torch.testing.assert_close(windowed(same, size=16, overlap=8, multiple=4)(x, ONE), x)
    assert x.equal(before)


@pytest.mark.parametrize("memory_mb", [0.2, 1.0])
def test_a_constant_answer_stays_constant(memory_mb):
    frame = windowed(lambda x, sigma: torch.full_like(x, 0.7), multiple=8, reach=5, memory_mb=memory_mb)
    torch.testing.assert_close(frame(torch.randn(1, 3, 103, 59), ONE), torch.full((1, 3, 103, 59), 0.7))


@pytest.mark.parametrize("size", [40, 64, None])
def test_the_answer_of_a_local_denoiser_is_that_of_the_whole_frame(size):
    x, sigma = torch.randn(1, 3, 88, 120, dtype=torch.float64), torch.rand(1, 3, 88, 120, dtype=torch.float64)
    frame = windowed(local, size=size, multiple=8, reach=REACH, memory_mb=0.5)
    torch.testing.assert_close(frame(x, sigma), local(x, sigma), atol=1e-12, rtol=0)
    near = windowed(local, size=40, multiple=8, reach=0)(x, sigma)
    assert (near - local(x, sigma)).abs().max() > 1e-3
    sharp = windowed(local, size=40, overlap=8, multiple=8)(x, sigma)
    assert (sharp - local(x, sigma)).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{"widths": (4, 4)}, {"widths": (4, 4, 4)}, {"widths": (4, 4), "blocks": 2}])
def test_networks_tell_exactly_how_far_they_see(options):
    net = network(**options).network
    middle, seen = (net.reach // net.multiple + 2) * net.multiple, 0
    x = torch.randn(1, 3, 16, 2 * middle + net.multiple, dtype=torch.float64, requires_grad=True)
    for pixel in range(middle, middle + net.multiple):
        found = torch.autograd.grad(net(x, torch.zeros_like(x))[..., pixel].sum(), x)[0].abs().amax((0, 1, 2)).nonzero()
        seen = max(seen, pixel - int(found.min()), int(found.max()) - pixel)
    assert net.reach == seen
    assert NETWORKS["ddpmpp"](widths=[16, 16], blocks=1).reach is None


def test_within_the_exact_reach_a_network_answers_as_on_the_whole_frame():
    prior = network()
    x, sigma = mosaic_state((168, 253))
    frames = [
        windowed(prior, multiple=4, reach=prior.network.reach, size=size, memory_mb=memory)(x, sigma)
        for size, memory in ((112, 15), (160, 31), (None, 1000))
    ]
    for other in frames[:2]:
        torch.testing.assert_close(other, frames[2], atol=1e-10, rtol=0)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_within_a_tolerance_margins_are_shorter_and_placements_agree(tolerance):
    prior = network()
    x, sigma = mosaic_state((200, 248))
    whole = prior(x, sigma)
    seen = []

    def spy(x, sigma):
        seen.append(x.shape[-1])
        return prior(x, sigma)

    for size in (128, 160):
        frame = windowed(spy, multiple=4, reach=prior.network.reach, size=size, tolerance=tolerance)
        assert (frame(x, sigma) - whole).abs().max() < tolerance
    reach = effective_reach(prior, lambda r, c: (x[..., r, c], sigma[..., r, c]), (200, 248), most=52, multiple=4, tolerance=tolerance)
    assert 0 < reach < 48


def test_a_reach_that_was_not_seen_to_end_is_taken_whole():
    def cut(rows, columns):
        return torch.randn(1, 3, 200, 200)[..., rows, columns], torch.ones(1, 3, 200, 200)[..., rows, columns]

    options = {"shape": (200, 200), "most": 40, "multiple": 8, "tolerance": 1e-3}
    assert effective_reach(lambda x, sigma: x - x.mean(), cut, **options) == 40
    assert effective_reach(local, cut, **options) == 8
    assert effective_reach(same, cut, **options) == 0


def test_windows_start_where_strided_layers_see_the_same_cells():
    def cells(x, sigma):
        return F.avg_pool2d(x, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)

    x = torch.randn(1, 3, 104, 136)
    torch.testing.assert_close(windowed(cells, size=48, overlap=16, multiple=8)(x, ONE), cells(x, ONE))


def test_sigma_maps_are_cut_with_the_image():
    x, sigma = torch.randn(1, 3, 45, 49), torch.rand(1, 3, 45, 49)
    out = windowed(lambda x, sigma: sigma, size=16, overlap=8, multiple=8)(x, sigma)
    torch.testing.assert_close(out, sigma)


def test_small_windows_go_through_the_network_together():
    batches = []

    def spy(x, sigma):
        batches.append(len(x))
        return local(x, sigma)

    x = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    out = windowed(spy, size=48, multiple=8, reach=REACH, memory_mb=1.0)(x, ONE.double())
    assert max(batches) > 1
    torch.testing.assert_close(out, local(x, ONE.double()))


# gradients


@pytest.mark.parametrize("shape", [(48, 64), (45, 59), (5, 7)])
def test_gradients_through_windows_are_those_of_the_whole_frame(shape):
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    cotangent = torch.randn_like(x)
    found = []
    for denoiser in (windowed(local, size=40, multiple=8, reach=REACH), windowed(local, multiple=8)):
        y = x.clone().requires_grad_()
        found += torch.autograd.grad(denoiser(y, ONE.double()), y, cotangent)
    torch.testing.assert_close(found[0], found[1])
    assert found[0].norm() > 1


def test_margins_are_measured_once_for_an_evaluation_and_its_gradient():
    asked = []

    def watched(x, sigma):
        asked.append(x.shape[-2:])
        return local(x, sigma)

    x = torch.randn(1, 3, 96, 128, dtype=torch.float64, requires_grad=True)
    out = windowed(watched, size=64, multiple=8, reach=REACH, tolerance=1e-3)(x, ONE.double())
    before = len(asked)
    torch.autograd.grad(out.sum(), x)
    assert set(asked[before:]) == {(64, 64)}  # the windows themselves


@pytest.mark.parametrize("shape", [(3, 5), (7, 9)])
def test_gradients_are_finite_differences_where_the_frame_is_mirrored(shape):
    x = torch.randn(1, 1, *shape, dtype=torch.float64, requires_grad=True)
    frame = windowed(lambda x, sigma: (0.3 * x + x.roll(1, -1) * x).sin(), size=8, overlap=4, multiple=4)
    assert torch.autograd.gradcheck(lambda x: frame(x, ONE.double()), x)


# memory


def test_live_bytes_are_counted():
    with LiveBytes() as found:
        a = torch.zeros(1000)
        b = a + 1
        b = b.reshape(10, 100) * 2
    assert found.peak == 12_000
    del a, b
    assert found.now == 0


@pytest.mark.parametrize(("gradient", "values"), [(False, 2), (True, 4)])
def test_bytes_of_an_evaluation_are_those_at_once_and_those_that_autograd_keeps(gradient, values):
    def exponentials(x, sigma):
        return (2 * x).exp().exp()  # two at once; each exponential keeps its result

    found = bytes_per_pixel(exponentials, *torch.zeros(2, 1, 3, 32, 16), gradient=gradient)
    assert found == pytest.approx(values * 3 * 4)


def peak_beyond_the_result(side, **options):
    x, sigma = torch.zeros(1, 3, side, side), torch.ones(1, 1, 1, 1)
    denoiser = windowed(network().float(), multiple=4, **options)
    with torch.no_grad(), LiveBytes() as found:
        denoiser(x, sigma)
    return found.peak - x.nbytes


def test_the_memory_of_windows_does_not_grow_with_the_frame():
    small, large = (peak_beyond_the_result(side, size=128, overlap=40) for side in (128 + 2 * 88, 128 + 4 * 88))
    assert large == pytest.approx(small, rel=0.05)


def test_the_memory_of_windows_is_what_was_asked_for():
    assert 2 * 2**20 < peak_beyond_the_result(400, reach=20, memory_mb=10) < 10 * 2**20


SCRIPT = """
import resource, sys, torch
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.restoration.windows import windowed
torch.set_grad_enabled(False)
prior = Denoiser(NETWORKS["pyramid_unet"](widths=[16, 32], blocks=1), 0.5)
x, sigma = torch.zeros(1, 3, 768, 768), torch.ones(1, 1, 1, 1)
prior(x[..., :64, :64], sigma)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
windowed(prior, multiple=4, reach=20, memory_mb=float(sys.argv[1]))(x, sigma)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 - x.nbytes / 2**20)
"""


def test_a_process_takes_no_more_memory_than_it_may():
    found = subprocess.run([sys.executable, "-c", SCRIPT, "100"], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 105


class SmallDevice:
    """A denoiser that runs out of memory above so many pixels."""

    def __init__(self, pixels):
        self.pixels, self.failures = pixels, 0

    def __call__(self, x, sigma):
        if x[:, 0].numel() > self.pixels:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return local(x, sigma)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_out_of_memory_ends_in_smaller_windows_with_the_same_result_and_says_so():
    x, sigma, device, fractions = torch.randn(1, 3, 96, 128, dtype=torch.float64), ONE.double(), SmallDevice(4000), []
    frame = windowed(device, multiple=8, reach=REACH, on_fraction=fractions.append)
    with pytest.warns(UserWarning, match="out of memory with 0.0123 megapixels at once; going on with half as many"):
        out = frame(x, sigma)
    torch.testing.assert_close(out, local(x, sigma))
    assert sum(fractions) == pytest.approx(1)
    failures = device.failures
    frame(x, sigma)
    assert device.failures == failures  # what did not fit is not tried again


@pytest.mark.filterwarnings("ignore:out of memory")
def test_shares_of_an_evaluation_that_is_begun_anew_are_taken_back():
    calls, fractions = [], []

    def fails_late(x, sigma):
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return local(x, sigma)

    windowed(fails_late, size=64, multiple=8, reach=REACH, on_fraction=fractions.append)(torch.randn(1, 3, 96, 128), ONE)
    assert min(fractions) < 0
    assert sum(fractions) == pytest.approx(1)


def test_out_of_memory_in_the_backward_pass_too():
    x, device = torch.randn(1, 3, 96, 128, dtype=torch.float64, requires_grad=True), SmallDevice(20_000)
    out = windowed(device, multiple=8, reach=REACH)(x, ONE.double())
    device.pixels = 4000
    with pytest.warns(UserWarning, match="out of memory"):
        found = torch.autograd.grad(out.sum(), x)[0]
    torch.testing.assert_close(found, torch.autograd.grad(local(x, 1).sum(), x)[0])


@pytest.mark.filterwarnings("ignore:out of memory")
def test_a_device_without_memory_for_the_smallest_window_fails_as_what_it_is():
    with pytest.raises(torch.OutOfMemoryError, match="no memory for even the smallest windows"):
        windowed(SmallDevice(10), multiple=8, reach=REACH)(torch.randn(1, 3, 96, 130), ONE)


# what the caller hears


def test_evaluations_are_counted_per_frame_and_shares_add_up():
    count, fractions = [], []
    frame = windowed(same, size=16, overlap=8, multiple=8, on_evaluation=lambda: count.append(1), on_fraction=fractions.append)
    frame(torch.randn(1, 3, 64, 64), ONE)
    assert len(count) == 1
    assert len(fractions) == 49
    assert sum(fractions) == pytest.approx(1)


def test_reduced_precision_is_close_and_not_the_same():
    prior = network().float()
    x, sigma = (t.float() for t in mosaic_state((64, 64)))
    full, reduced = (windowed(prior, multiple=4, precision=precision)(x, sigma) for precision in ("fp32", "bf16"))
    assert reduced.dtype == torch.float32
    assert 0 < (full - reduced).abs().max() < 0.1


@pytest.mark.parametrize(
    ("size", "overlap", "words"), [(256, 300, r"overlap must be in \[0, size\), got overlap=300"), (20, 8, "multiples of 8")]
)
def test_impossible_windows_say_why(size, overlap, words):
    with pytest.raises(ValueError, match=words):
        windowed(local, size=size, overlap=overlap, multiple=8)
