from math import log10

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.validation import denoising_quality, validation_row
from tests.diffusion.test_training import fresh, run

SCALING = Scaling(-0.7, 0.8)
TILES = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 0.4 - 0.9


def nothing(x, sigma):
    """The worst denoiser: its error is the noise."""
    return x


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_without_denoising_the_psnr_is_that_of_the_noise(sigma):
    """Error sigma * scale in the tile domain; nothing is clipped as tiles are 5 sigma away from the limits."""
    figure = denoising_quality(nothing, TILES * 0.5, [sigma], SCALING, 0, 3)[f"psnr_{sigma:g}"]
    standard_error = 10 / torch.log(torch.tensor(10.0)).item() * (2 / TILES.numel()) ** 0.5
    assert figure == pytest.approx(20 * log10(2 / (sigma * SCALING.scale)), abs=5 * standard_error)


def test_figures_do_not_depend_on_the_pass_and_repeat():
    denoiser = run(fresh(), stop_after=2).denoiser
    whole, parts = (denoising_quality(denoiser, TILES, [0.1, 1.0], SCALING, 0, batch) for batch in (7, 3))
    assert whole == pytest.approx(parts, rel=1e-5)
    assert denoising_quality(denoiser, TILES, [0.1, 1.0], SCALING, 0, 3) == parts
    assert list(whole) == ["psnr_0.1", "ssim_0.1", "psnr_1", "ssim_1"]


def test_a_pass_holds_no_more_tiles_than_it_may():
    sizes = []

    def counting(x, sigma):
        sizes.append(len(x))
        return x

    denoising_quality(counting, TILES, [0.1, 1.0], SCALING, 0, 3)
    assert sizes == [3, 3, 1] * 2


def test_figures_are_those_of_torchmetrics_over_all_tiles():
    seen = []

    def recording(x, sigma):
        seen.append(SCALING.to_tile(x * 0.9).clamp(-1, 1))
        return x * 0.9

    figures = denoising_quality(recording, TILES, [0.3], SCALING, 0, 3)
    denoised = torch.cat(seen)
    assert figures["psnr_0.3"] == pytest.approx(float(peak_signal_noise_ratio(denoised, TILES, data_range=2.0)), rel=1e-5)
    assert figures["ssim_0.3"] == pytest.approx(float(structural_similarity_index_measure(denoised, TILES, data_range=2.0)), rel=1e-4)


def test_a_row_tells_of_the_mean_and_of_the_weights_and_changes_neither():
    state = run(fresh(), stop_after=6, learning_rate=1e-2, ramp_kimg=0)
    state.denoiser.train()
    before = [weights.clone() for weights in state.denoiser.parameters()]
    row = validation_row(state, TILES, [0.3], SCALING, 0, 4)
    assert row == denoising_quality(state.ema, TILES, [0.3], SCALING, 0, 4) | {
        f"raw_{name}": figure for name, figure in denoising_quality(state.denoiser, TILES, [0.3], SCALING, 0, 4).items()
    }
    assert row["raw_psnr_0.3"] != row["psnr_0.3"]
    assert state.denoiser.training
    assert all(torch.equal(a, b) for a, b in zip(before, state.denoiser.parameters(), strict=True))
