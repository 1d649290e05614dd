"""Speed and memory options change nothing but rounding, and the counts are what real tensors take."""

import contextlib
from copy import deepcopy

import pytest
import torch
from torch import nn

from lowlight_kedro.diffusion.checkpoint import pack, unpack
from lowlight_kedro.diffusion.compute import (
    Compute,
    checkpoint_blocks,
    compile_network,
    gpu_arithmetic,
    network_precision,
    prepare,
    residual_blocks,
)  # fmt: skip
from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss
from lowlight_kedro.diffusion.memory import (
    LiveBytes,
    PassLimits,
    candidates,
    count_pass,
    fitting_pass,
    gpu_trial,
    largest_pass,
    loss_of_noise,
    run_pass,
)
from lowlight_kedro.diffusion.networks import NETWORKS
from tests.diffusion.test_training import fresh, run, same

CPU = torch.device("cpu")
UNETS = [name for name in NETWORKS if name not in ("mosaic_net", "experts")]  # the others look at values, which a count has not
ATTENTIVE = ("adm", "ddpmpp")
LIMITS = PassLimits(gpu_fraction=0.9, cpu_fraction=0.25, cpu_images=4)


def small(name, seed=0):
    """A network whose outputs and gradients are nowhere zero by construction."""
    torch.manual_seed(seed)
    denoiser = Denoiser(NETWORKS[name](widths=[16, 24], blocks=1 if name in ATTENTIVE else 2), 0.5)  # theirs have twice as many operations
    for weights in denoiser.parameters():
        nn.init.normal_(weights, std=0.05)
    return denoiser


def gradients(denoiser, precision="fp32"):
    torch.manual_seed(1)
    loss = loss_of_noise(denoiser, 2, 3, 16, CPU, precision)
    loss.backward()
    found = {name: weights.grad.clone() for name, weights in denoiser.named_parameters()}
    denoiser.zero_grad()
    return loss.item(), found


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp32") for name in UNETS), ("pyramid_unet", "bf16")])
def test_checkpointing_keeps_gradients_names_and_copies_and_less_memory(name, precision):
    plain, saving = small(name), small(name)
    names = list(saving.state_dict())
    checkpoint_blocks(saving.network)
    assert list(saving.state_dict()) == names
    wanted_loss, wanted = gradients(plain, precision)
    for denoiser in (saving, deepcopy(saving)):
        loss, found = gradients(denoiser, precision)
        assert loss == wanted_loss
        for key, value in wanted.items():
            assert value.abs().sum() > 0
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-8)
    before, after = (count_pass(denoiser, 4, 32, precision) for denoiser in (plain, saving))
    assert after.activations < 0.7 * before.activations
    assert 1.05 < after.flops / before.flops < 4 / 3  # at most one more forward pass on top of the three


def test_a_copy_of_a_checkpointed_network_computes_with_its_own_weights():
    original = small("raw_unet")
    checkpoint_blocks(original.network)
    twin = deepcopy(original)
    for weights in twin.parameters():
        weights.data.zero_()
    x = torch.randn(1, 3, 16, 16)
    assert twin.network(x, x).abs().max() == 0
    assert original.network(x, x).abs().max() > 0


def test_checkpointing_a_network_without_marked_blocks_says_what_to_do():
    with pytest.raises(ValueError, match="residual = True"):
        checkpoint_blocks(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_residual_blocks_are_the_outermost_marked_ones():
    class Inner(nn.Module):
        residual = True

    class Outer(nn.Module):
        residual = True

        def __init__(self):
            super().__init__()
            self.inner = Inner()

    outer, inner = Outer(), Inner()
    assert residual_blocks(nn.Sequential(nn.ModuleList([outer]), inner)) == [outer, inner]


def test_in_bf16_only_the_network_is_rounded():
    """With a network that is exact in bf16, loss and preconditioning are those of fp32, bit for bit; with another they are not."""

    class Zero(nn.Module):
        def forward(self, scaled, c_noise):
            return torch.zeros_like(scaled)

    def loss(network, precision):
        torch.manual_seed(2)
        x0, noise = torch.randn(2, 2, 3, 8, 8)
        sigma = torch.tensor([0.013, 3.3]).reshape(2, 1, 1, 1)
        with network_precision(precision, CPU):
            return denoising_loss(Denoiser(network, 0.5), x0, x0 + sigma * noise, sigma)

    assert loss(Zero(), "bf16").dtype == torch.float32
    assert torch.equal(loss(Zero(), "bf16"), loss(Zero(), "fp32"))
    network = small("raw_unet").network
    assert 1e-6 < (loss(network, "bf16") / loss(network, "fp32") - 1).abs().max() < 0.02


def test_weights_gradients_moments_and_mean_stay_fp32_in_bf16():
    state = run(fresh(), stop_after=2, precision="bf16")
    assert {tensor.dtype for tensor in pack(state, {}).tensors.values()} == {torch.float32}
    assert not same(state, run(fresh(), stop_after=2))


def channels_last(state):
    prepare(state.denoiser, [state.ema], state.optimizer, Compute(channels_last=True))
    return state


def test_channels_last_gives_the_same_training_to_rounding():
    plain, nhwc = run(fresh(widths=(8, 12)), stop_after=6), run(channels_last(fresh(widths=(8, 12))), stop_after=6)
    assert not nhwc.denoiser.network.first.weight.is_contiguous()
    for (name, value), other in zip(pack(plain, {}).tensors.items(), pack(nhwc, {}).tensors.values(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_a_run_in_channels_last_resumes_bit_for_bit():
    """Moments come from a file in the usual order; fused Adam would give them to other weights."""
    whole = run(channels_last(fresh(widths=(8, 12))))
    stopped = pack(run(channels_last(fresh(widths=(8, 12))), stop_after=4), {})
    stopped = type(stopped)({name: tensor.contiguous().clone() for name, tensor in stopped.tensors.items()}, stopped.description)
    resumed = fresh(seed=9, widths=(8, 12))
    unpack(stopped, resumed, {})
    assert same(run(channels_last(resumed)), whole)


def test_a_compiled_network_keeps_its_names_and_its_answers():
    """With dynamo's own backend: inductor takes minutes on a CPU."""
    denoiser = small("pyramid_unet")
    names, wanted = list(denoiser.state_dict()), gradients(denoiser)
    checkpoint_blocks(denoiser.network)
    compile_network(denoiser.network, Compute(compile="default"), backend="eager")
    loss, found = gradients(denoiser)
    assert loss == pytest.approx(wanted[0], rel=1e-6)
    for key, value in wanted[1].items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-7)
    assert list(denoiser.state_dict()) == names
    deepcopy(denoiser).network(torch.randn(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_compiling_is_off_unless_asked(monkeypatch):
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: calls.append(options))
    for mode in (None, "reduce-overhead"):
        compile_network(nn.Identity(), Compute(compile=mode))
    assert calls == [{"backend": "inductor", "mode": "reduce-overhead"}]


@pytest.mark.parametrize("tf32", [True, False])
def test_gpu_arithmetic_is_as_asked_within_the_block_and_as_before_after_it(tf32):
    def settings():
        return [torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.benchmark]

    before = settings()
    with contextlib.suppress(KeyError), gpu_arithmetic(Compute(tf32=tf32, cudnn_benchmark=True)):
        assert settings() == [*["tf32" if tf32 else "ieee"] * 2, True]
        raise KeyError
    assert settings() == before


def test_gpu_arithmetic_with_the_older_names(monkeypatch):
    class Matmul:
        allow_tf32 = False

    class Cudnn:
        allow_tf32, benchmark = True, False

    monkeypatch.setattr(torch.backends.cuda, "matmul", Matmul)
    monkeypatch.setattr(torch.backends, "cudnn", Cudnn)
    with gpu_arithmetic(Compute(tf32=True)):
        assert (Matmul.allow_tf32, Cudnn.allow_tf32, Cudnn.benchmark) == (True, True, True)
    assert (Matmul.allow_tf32, Cudnn.allow_tf32, Cudnn.benchmark) == (False, True, False)


@pytest.mark.parametrize("name", UNETS)
def test_the_count_is_what_real_tensors_take(name):
    denoiser, counted = small(name), count_pass(small(name), 2, 16, "bf16")
    for weights in denoiser.parameters():
        weights.grad = torch.zeros_like(weights)
    with LiveBytes() as live:
        loss = loss_of_noise(denoiser, 2, 3, 16, CPU, "bf16")
        kept = live.now
        loss.backward()
    attention = 2e-3 if name in ATTENTIVE else 0  # its kernel's statistics are padded otherwise
    assert (counted.activations, counted.working) == pytest.approx((kept, live.peak), rel=attention, abs=0)
    assert counted.parameters == sum(weights.numel() for weights in denoiser.parameters())


def test_live_bytes_of_a_sum_of_squares_by_hand():
    x = torch.randn(1000)  # 4000 bytes, made before
    with LiveBytes() as live:
        a = x * 2
        b = a.square()
        assert live.now == 8000
        del b
        assert live.now == 4000
        a.sum()
    assert (live.now, live.peak) == (4000, 8000)
    assert live.moved == 8000 + 8000 + 4004  # read and written


def test_a_count_leaves_the_denoiser_and_the_random_numbers_alone():
    denoiser = small("raw_unet")
    before, drawn = deepcopy(denoiser.state_dict()), torch.get_rng_state()
    count_pass(denoiser, 2, 16, "fp32")
    run_pass(denoiser, 2, 3, 16, "fp32")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(denoiser.state_dict()[name], value) for name, value in before.items())
    assert all(weights.grad is None for weights in denoiser.parameters())


def test_the_cost_of_a_pass_is_proportional_to_its_images_and_bf16_halves_what_is_kept():
    denoiser = small("raw_unet")
    one, two, three = (count_pass(denoiser, images, 32, "fp32") for images in (8, 16, 24))
    assert three.flops == 3 * one.flops
    assert three.activations - two.activations == two.activations - one.activations
    assert count_pass(denoiser, 32, 64, "bf16").activations < 0.6 * count_pass(denoiser, 32, 64, "fp32").activations
    assert one.total(means=3) - one.total(means=1) == 2 * 4 * one.parameters


def test_group_norm_is_counted_in_fp32_as_autocast_on_a_gpu_computes_it():
    denoiser = small("ddpmpp")
    cpu, gpu = (count_pass(denoiser, 4, 32, "bf16", as_on_gpu=wanted).activations for wanted in (False, True))
    assert 1.2 < gpu / cpu < 1.8
    plain = small("raw_unet")
    assert count_pass(plain, 4, 32, "bf16", as_on_gpu=True) == count_pass(plain, 4, 32, "bf16")
    checkpoint_blocks(denoiser)  # what is computed again is as it was
    assert count_pass(denoiser, 4, 32, "bf16", as_on_gpu=True).activations < gpu


def test_candidates_are_the_powers_of_two_that_divide_the_batch():
    assert candidates(256) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert candidates(48) == [1, 2, 4, 8, 16]
    assert candidates(7) == [1]


@pytest.mark.parametrize(("available", "wanted"), [(100, 1), (399, 2), (400, 4), (10**6, 16)])
def test_the_largest_pass_that_fits_is_taken(available, wanted):
    tried = []
    found = largest_pass(candidates(48), lambda images: tried.append(images) or 100 * images, available)
    assert found == wanted
    assert max(tried) <= 2 * wanted


def test_out_of_memory_is_a_size_that_does_not_fit():
    def trial(images):
        if images > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1

    assert largest_pass(candidates(256), trial, 10) == 4


def test_one_image_that_does_not_fit_is_an_error_with_a_remedy():
    with pytest.raises(ValueError, match=r"not even one image fits in 2\.0 GiB.*checkpointing=true"):
        largest_pass([1, 2], lambda images: 2**40, 2 * 2**30)


def test_the_pass_on_a_cpu_follows_the_count_and_the_machine(monkeypatch):
    denoiser = small("raw_unet")
    needed = {images: count_pass(denoiser, images, 16, "fp32").total() for images in (2, 4)}
    for memory, wanted in ((needed[2] * 4, 2), (needed[4] * 4 - 4, 2), (2**60, 4)):
        monkeypatch.setattr("lowlight_kedro.diffusion.memory.machine_memory", lambda memory=memory: memory)
        assert fitting_pass(denoiser, 64, 3, 16, "fp32", LIMITS) == wanted


def test_a_gpu_trial_frees_what_it_took_also_after_running_out_of_memory(monkeypatch):
    """The calls that a GPU would see, in order; it was not run on one."""
    calls = []
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *device, name=name: calls.append(name))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 1000)
    denoiser = small("raw_unet")
    assert gpu_trial(denoiser, 3, 16, "fp32", moments=7)(2) == 1007

    def fails(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("lowlight_kedro.diffusion.memory.loss_of_noise", fails)
    with pytest.raises(torch.OutOfMemoryError):
        gpu_trial(denoiser, 3, 16, "fp32", moments=7)(2)
    assert calls == ["empty_cache", "reset_peak_memory_stats", "empty_cache"] * 2
    assert all(weights.grad is None for weights in denoiser.parameters())
