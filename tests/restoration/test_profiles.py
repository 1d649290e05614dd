"""What the channels show of a slow offset is weighed as generalised least squares weighs it, with the error that it has."""

import numpy as np
import pytest

from lowlight_kedro.restoration.profiles import BESIDE, SLOW, Profiles, Response, dct, estimates_by_colour, idct

LENGTH = 384
KNOWN = np.array([0.3, 0.0, 0.15])  # what red, green and blue show
LIGHT = np.array([0.6, 1.0, 0.7])  # colours of what D missed: far more than noise


def shown(offsets, rng, sites):
    """Profiles of noise of unit information, light that all channels share, and the offsets; `sites` (3, L) tells which lines have what."""
    information = 100.0 * sites
    noise = rng.normal(size=(3, LENGTH, 1 + BESIDE)) * np.sqrt(information)[..., None]
    light = idct(rng.normal(size=(1 + BESIDE, LENGTH)) * (np.arange(LENGTH) < LENGTH / SLOW)).T
    scores = noise + 2.0 * information[..., None] * LIGHT[:, None, None] * light
    scores[..., 0] += information * KNOWN[:, None] * offsets
    return Profiles(scores, np.broadcast_to(information[..., None], scores.shape))


def response():
    return Response(0.2, 1.3, np.tile(KNOWN[:, None], (1, 5)), np.ones(5))


@pytest.mark.parametrize("mosaic", [False, True])
def test_the_error_is_the_one_that_is_told(mosaic):
    rng, lines = np.random.default_rng(0), np.arange(LENGTH) % 2
    sites = np.stack([lines, np.ones(LENGTH), 1 - lines]) if mosaic else np.ones((3, LENGTH))
    errors, told = [], []
    for _ in range(40):
        spectrum = np.where(np.arange(LENGTH) < LENGTH / SLOW, rng.normal(size=LENGTH), 0)
        profiles = shown(idct(spectrum), rng, sites)
        (seen, variance), _ = estimates_by_colour(profiles, response(), np.zeros(LENGTH), 0.0)
        errors.append(seen - 10 * np.sqrt(sites.sum(axis=0).mean()) * spectrum[1 : LENGTH // SLOW])
        told.append(variance)
    ratio = np.mean(np.square(errors)) / np.mean(told)
    assert 0.8 < ratio < 1.3  # 42 samples tell R: its inverse is a tenth too large
    exact = np.diag(np.ones(3)) + 400 * np.outer(LIGHT, LIGHT)
    share = 10 * KNOWN * np.sqrt(sites.mean(axis=1)) / (10 * np.sqrt(sites.sum(axis=0).mean()))
    if not mosaic:
        assert np.mean(told) == pytest.approx(1 / (share @ np.linalg.solve(exact, share)), rel=0.25)


def test_fast_offsets_of_lines_without_a_channel_are_no_slow_ones():
    """Red is in every second line only, so that offsets that alternate would look like none that changes."""
    lines = np.arange(LENGTH) % 2
    sites = np.stack([lines, np.ones(LENGTH), 1 - lines])
    fast = np.zeros(LENGTH)
    fast[-20:] = 50.0
    clean = shown(np.zeros(LENGTH), np.random.default_rng(1), sites)
    root = clean.root
    offsets, flat = idct(fast) / root, Response(1e-3, 3.0, np.tile(KNOWN[:, None], (1, 5)), np.ones(5))
    scores = clean.scores.copy()
    scores[..., 0] += clean.gram[..., 0] * offsets  # the whole of a fast offset is shown
    dirty = Profiles(scores, clean.gram)
    (nothing, _), _ = estimates_by_colour(clean, flat, np.zeros(LENGTH), 0.0)
    (folded, _), _ = estimates_by_colour(dirty, flat, np.zeros(LENGTH), 0.0)
    (told, _), _ = estimates_by_colour(dirty, flat, fast, 0.0)
    assert np.abs(folded - nothing).max() > 20
    np.testing.assert_allclose(told, nothing, atol=1e-6)


def test_loudness_mends_a_response_that_is_misjudged():
    """D took twice as much of loud bands for light as of the faint ones that were tried."""
    rng, sites = np.random.default_rng(0), np.ones((3, LENGTH))
    alone, both = [], []
    for _ in range(10):
        spectrum = np.where(np.arange(LENGTH) < LENGTH / SLOW, rng.normal(size=LENGTH), 0)
        offsets = 5 * idct(spectrum)
        profiles = shown(offsets / 2, rng, sites)
        beside = rng.normal(size=(LENGTH, 1 + BESIDE)) / 2
        loud = Profiles(profiles.scores, profiles.gram, beside + np.eye(1, 1 + BESIDE) * offsets[:, None])
        truth = dct(offsets * profiles.root)[1 : LENGTH // SLOW]
        alone.append(estimates_by_colour(profiles, response(), np.zeros(LENGTH), 0.0)[1][0] - truth)
        both.append(estimates_by_colour(loud, response(), np.zeros(LENGTH), 0.0)[1][0] - truth)
    assert np.std(both) < 0.5 * np.std(alone)
