"""The metrics, and the long exposure that is laid over the short one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from lowlight_kedro.evaluation.metrics import METRICS, MetricUnavailableError, measure, refer
from lowlight_kedro.evaluation.pictures import most_detailed
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.demosaic import demosaic
from lowlight_kedro.sensor.demosaic.interpolation import bilinear
from lowlight_kedro.sensor.frame import crop
from tests.conftest import make_frame

PLAIN = {name: METRICS[name] for name in ("psnr", "ssim")}


@pytest.fixture
def pair(rng):
    truth = rng.uniform(size=(3, 64, 64)).astype(np.float32)
    return (truth + rng.normal(0, 0.1, truth.shape)).astype(np.float32), truth


def test_psnr_and_ssim_agree_with_another_library(pair):
    image, truth = pair[0].clip(0, 1), pair[1]
    ours = measure(*pair, PLAIN)
    assert ours["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=1.0), abs=1e-3)
    theirs = structural_similarity(
        truth, image, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ours["ssim"] == pytest.approx(theirs, abs=5e-3)  # borders are treated differently


def test_the_same_image_is_perfect(pair):
    same = measure(pair[1], pair[1], PLAIN)
    assert same["ssim"] == pytest.approx(1)
    assert same["psnr"] == float("inf")


def test_values_outside_the_screen_do_not_count(pair):
    assert measure(pair[1] * 0 - 5, pair[1] * 0, PLAIN)["psnr"] == float("inf")


def test_the_most_detailed_square_is_found(rng):
    image = np.zeros((3, 100, 100))
    image[:, 60:80, 20:40] = rng.uniform(size=(3, 20, 20))
    top, left = most_detailed(image, 20)
    assert abs(top - 60) <= 10
    assert abs(left - 20) <= 10


def test_only_the_mask_counts(pair):
    image, truth = pair
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    spoiled = np.where(mask, image, 1 - truth).astype(np.float32)
    flat = np.square(image.clip(0, 1) - truth)[:, mask].mean()
    assert measure(spoiled, truth, PLAIN, mask)["psnr"] == pytest.approx(-10 * np.log10(flat), abs=1e-3)
    inner = np.zeros_like(mask)
    inner[21:43, 21:43] = True  # windows of 11 that lie in the good part
    assert measure(spoiled, truth, PLAIN, inner)["ssim"] == pytest.approx(measure(image, truth, PLAIN, inner)["ssim"], abs=1e-5)
    assert measure(spoiled, truth, PLAIN)["ssim"] < measure(image, truth, PLAIN)["ssim"] - 0.1
    assert np.isnan(measure(image, truth, PLAIN, np.zeros_like(mask))["psnr"])


@pytest.mark.parametrize("shape", [(300, 40), (128, 40), (129, 40), (20, 33)])
def test_ssim_in_strips_is_that_of_the_whole_image(shape, rng):
    truth, mask = rng.uniform(size=(3, *shape)).astype(np.float32), rng.uniform(size=shape) > 0.3
    image = (truth + rng.normal(0, 0.1, truth.shape)).astype(np.float32).clip(0, 1)
    _, full = structural_similarity_index_measure(
        torch.from_numpy(image)[None], torch.from_numpy(truth)[None], data_range=1.0, return_full_image=True
    )
    inside = np.zeros(shape, bool)
    inside[5:-5, 5:-5] = mask[5:-5, 5:-5]
    assert measure(image, truth, PLAIN, mask)["ssim"] == pytest.approx(float(full[0].numpy()[:, inside].mean()), abs=1e-6)


def test_what_a_metric_lacks_is_told(pair):
    with pytest.raises(MetricUnavailableError, match=r"at least 176 pixels .* got \(64, 64\)"):
        measure(*pair, {"ms_ssim": METRICS["ms_ssim"]})


def test_lpips_says_how_to_get_its_weights(pair, monkeypatch):
    def without(*_, **__):
        raise ImportError("no torchvision")

    monkeypatch.setattr("torchmetrics.functional.image.learned_perceptual_image_patch_similarity", without)
    with pytest.raises(MetricUnavailableError, match=r"pip install lowlight-kedro\[lpips\]"):
        measure(*pair, {"lpips": METRICS["lpips"]})


def test_ms_ssim_falls_with_blur_and_does_not_see_what_is_masked(rng):
    truth = rng.uniform(size=(3, 180, 176)).astype(np.float32)
    blurred = ((truth + np.roll(truth, 1, 1) + np.roll(truth, 1, 2)) / 3).astype(np.float32)
    ms_ssim = {"ms_ssim": METRICS["ms_ssim"]}
    nothing = np.zeros(truth.shape[1:], bool)
    assert measure(truth, truth, ms_ssim)["ms_ssim"] == pytest.approx(1, abs=1e-6)
    assert measure(blurred, truth, ms_ssim)["ms_ssim"] < 0.9
    assert measure(blurred, truth, ms_ssim, nothing)["ms_ssim"] == pytest.approx(1, abs=1e-6)


def light_of(frame):
    return demosaic(frame, bilinear)


@pytest.mark.parametrize(("cfa", "shift"), [(BAYER_RGGB, (4, -6)), (BAYER_RGGB, (-8, 2)), (XTRANS, (6, -12)), (XTRANS, (-3, 3))])
@pytest.mark.parametrize("part", [None, (60, 49, 100, 120), (0, 0, 80, 90)])
def test_the_reference_shows_what_the_restored_part_shows(rng, cfa, shift, part):
    """Two windows of one mosaic, `shift` apart: away from the border both demosaic to the same light."""
    whole = make_frame(rng, cfa, (300, 320), light=0.6)
    period, (dy, dx) = len(cfa), shift
    top, left = 4 * period, 4 * period
    short = replace(whole, mosaic_dn=whole.mosaic_dn[top : top + 240, left : left + 252])
    long = replace(whole, mosaic_dn=whole.mosaic_dn[top - dy : top - dy + 240, left - dx : left - dx + 252])
    restored = light_of(crop(short, *part) if part else short)
    reference = refer(short, long, part, (dy + 0.3, dx - 0.3), None, light_of)
    assert reference.light.shape == reference.of(restored).shape
    assert reference.mask.shape == reference.light.shape[1:]
    np.testing.assert_allclose(reference.light[:, 20:-20, 20:-20], reference.of(restored)[:, 20:-20, 20:-20], atol=1e-6)


def test_what_lies_outside_the_long_exposure_is_cut_off(rng):
    frame = make_frame(rng, BAYER_RGGB, (128, 160), light=0.6)
    reference = refer(frame, frame, (0, 0, 60, 70), (-10, 6), None, light_of)
    assert reference.inside == (slice(10, 60), slice(0, 70))
    with pytest.raises(ValueError, match="lies outside the long exposure"):
        refer(frame, frame, (0, 0, 60, 70), (-64, 0), None, light_of)
