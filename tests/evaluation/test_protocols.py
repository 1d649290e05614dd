"""Each protocol against its published definition, worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.evaluation.protocols import (
    PROTOCOLS,
    alignment,
    centred,
    eight_bits,
    encode_bt709,
    packed,
    raw_scores,
    recorded,
    srgb_scores,
    ssim,
)
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.frame import range_dn, with_white
from tests.conftest import make_frame

BALANCE = (2.0, 1.0, 1.5)


def flat(values: tuple[float, float, float], shape=(16, 16)):
    """Light of one colour."""
    return np.broadcast_to(np.array(values)[:, None, None], (3, *shape)).copy()


def frame_of(dn, **changes):
    """A long exposure whose sites have these DN."""
    frame = make_frame(np.random.default_rng(0), shape=np.shape(dn))
    return replace(frame, mosaic_dn=np.asarray(dn, np.uint16), white_balance=BALANCE, **changes)


def by_kind(scores):
    return {(score.scaling, score.metric): score for score in scores}


def test_raw_worked_by_hand():
    """Truth 0.2 everywhere (DN 512 + 3174.2, which is rounded to 3174); light whose sites show 0.1, 0.2, 0.2 and 0.4 of white.

    Plain: errors -0.1, 0, 0, 0.2, so MSE = 0.05 / 4 = 0.0125 and PSNR = 10 log10(80) = 19.0309 dB.
    Aligned: c = <p, g> / <p, p> = 0.2 * 0.9 / 0.25 = 0.72; errors 0.072 - 0.2, 0.144 - 0.2 twice, 0.288 - 0.2:
    MSE = (0.016384 + 2 * 0.003136 + 0.007744) / 4 = 0.0076 and PSNR = 21.1919 dB.
    """
    g = 3174 / 15871
    light = flat((0.1 * 2.0 * g / 0.2, 0.2 * g / 0.2, 0.4 * 1.5 * g / 0.2))
    found = by_kind(raw_scores("sid_raw", {"it": light}, frame_of(np.full((16, 16), 512 + 3174)), 15871.0)["it"])
    size = -20 * math.log10(g / 0.2)  # the rounding of DN scales all of it
    assert found["plain", "psnr"].value == pytest.approx(10 * math.log10(80) + size, abs=1e-6)
    assert found["aligned", "psnr"].value == pytest.approx(-10 * math.log10(0.0076) + size, abs=1e-6)
    assert found["aligned", "psnr"].factor == pytest.approx(0.72, abs=1e-6)
    assert found["plain", "psnr"].factor == 1
    assert (found["plain", "psnr"].region, found["plain", "psnr"].white_dn) == ("full frame", 16383.0)


def test_values_are_clipped_before_and_after_the_alignment_and_white_does_not_align():
    """Half of the truth is white: there 1.7 counts as 1 and decides nothing; else 0.1 becomes 0.2, and the white half 2, so 1."""
    dn = np.full((16, 16), 16383)
    dn[:, :8] = 512 + 3174
    light = np.where(np.arange(16) < 8, 0.5 * 3174 / 15871, 1.7) * np.array(BALANCE)[:, None, None] * np.ones((3, 16, 16))
    scores = by_kind(raw_scores("eld_raw", {"it": light}, frame_of(dn), 15871.0)["it"])
    assert scores["aligned", "psnr"].factor == pytest.approx(2, abs=1e-6)
    assert scores["aligned", "psnr"].value > 100
    assert scores["plain", "psnr"].value == pytest.approx(-10 * math.log10((0.5 * 3174 / 15871) ** 2 / 2), abs=1e-6)
    assert alignment(np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.5)) == 1


def test_ssim_is_the_formula_over_flat_windows_of_seven(rng):
    """One position of the window is left in 7 x 7: (2 mu mu' + c1)(2 cov + c2) / ((mu^2 + mu'^2 + c1)(var + var' + c2))."""
    p, g = rng.uniform(size=(2, 1, 7, 7))
    c1, c2 = 0.01**2, 0.03**2
    covariance = np.cov(p.ravel(), g.ravel())  # n - 1, as published
    (pm, gm) = p.mean(), g.mean()
    by_hand = (2 * pm * gm + c1) * (2 * covariance[0, 1] + c2) / ((pm**2 + gm**2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2))
    assert ssim(p, g) == pytest.approx(by_hand, abs=1e-6)
    with pytest.raises(ValueError, match="at least 7 x 7"):
        ssim(p[:, :6], g[:, :6])


def test_the_centre_is_that_of_eld():
    image = np.arange(2 * 7 * 9).reshape(2, 7, 9)
    np.testing.assert_array_equal(centred(image, 4), image[:, 1:5, 2:6])  # 7 // 2 - 2, 9 // 2 - 2
    np.testing.assert_array_equal(centred(np.arange(8 * 9).reshape(1, 8, 9), 5)[0, 0, 0], 2 * 9 + 2)  # 8 // 2 - 5 // 2, not (8 - 5) // 2
    assert centred(image, None) is image
    with pytest.raises(ValueError, match="4 x 4 does not fit into 3 x 9"):
        centred(image[:, :3], 4)


@pytest.mark.parametrize("cfa", [BAYER_RGGB, ((1, 2), (0, 1))])
def test_what_was_restored_exactly_scores_infinity_whatever_its_white(rng, cfa):
    """Light demosaiced from the long exposure itself shows its own sites; a white measured in the file changes the unit, not the score."""
    frame = replace(make_frame(rng, cfa, (20, 23)), black_level=np.full((2, 2), 512, np.float32))
    for long in (frame, with_white(frame, 15000.0, "measured")):
        signal = (long.mosaic_dn - 512.0) / range_dn(long)
        light = np.stack([signal * gain for gain in long.white_balance])
        np.testing.assert_allclose(recorded(light, cfa, long.white_balance), signal, rtol=1e-12)
        scores = raw_scores("sid_raw", {"it": light}, long, range_dn(long))["it"]
        assert all(score.value > 120 for score in scores if score.metric == "psnr")
    assert packed(signal, cfa).shape == (4, 10, 11)


def test_what_has_no_packed_raw_or_another_size_is_told(rng):
    with pytest.raises(ValueError, match="defined for Bayer mosaics"):
        packed(np.zeros((12, 12)), XTRANS)
    with pytest.raises(ValueError, match=r"mine has \(16, 14\) pixels"):
        raw_scores("sid_raw", {"mine": np.zeros((3, 16, 14))}, frame_of(np.full((16, 16), 600)), 15871.0)
    with pytest.raises(ValueError, match="restore the whole frame"):
        srgb_scores("sid_srgb", {"mine": np.zeros((3, 16, 14))}, np.eye(3), np.zeros((3, 16, 16)), 16383.0)


def test_srgb_worked_by_hand():
    """Linear 0.25 is 1.0993 * 0.25^0.45 - 0.0993 = 0.48982 in BT.709, 125 of 255; the truth 130: 10 log10((255 / 5)^2) = 34.1514 dB."""
    assert encode_bt709(np.array(0.01)) == pytest.approx(0.045)
    truth = np.full((3, 8, 8), 130 / 255 + 0.001)  # rounds to 130
    scores = srgb_scores("sid_srgb", {"it": flat((0.25, 0.25, 0.25), (8, 8))}, np.eye(3), truth, 16383.0)["it"]
    assert by_kind(scores)["plain", "psnr"].value == pytest.approx(20 * math.log10(255 / 5), abs=1e-6)
    np.testing.assert_array_equal(eight_bits(np.array([0.5 / 255, 0.499 / 255, 2.0])) * 255, [1, 0, 255])


def test_every_protocol_says_what_it_compares():
    for protocol in PROTOCOLS.values():
        assert protocol.source
        assert protocol.region == "full frame" or str(protocol.crop) in protocol.region
