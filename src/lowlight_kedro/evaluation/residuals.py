"""Metrics without a truth: is what a restoration took away the camera's noise, and only that?

r = (y - A x) / s, with y the recorded mosaic, A x what the sensor would show of the restored light x, and s the standard
deviation of the noise at A x. If x is the true light, r is white with mean square 1 and mean 0. A restoration that keeps noise
has a mean square below 1, one that takes detail away above it, and what it took away is correlated between neighbours.

A posterior mean has seen y: where p per cent of the noise of a site stay in its estimate, the mean square is (1 - p)^2 and not 1.
Below 1 is therefore no fault by itself; above 1 or correlated is.

Defects of the sensor are neither noise nor detail, and do not count: sites beyond what noise can do, but for one other alone among
their neighbours.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.evaluation.protocols import recorded
from lowlight_kedro.sensor.cfa import Cfa, tile_pattern
from lowlight_kedro.sensor.noise import NoiseModel

EDGES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the restored light around a site, unbalanced, at the exposure of the result; 1 = white
AROUND = 9  # pixels, side of the square whose mean sorts a site by brightness: noise that was kept must not sort it
SATURATED = 0.98  # of white: such sites say "at least", and have no residual
FAR = 6.0  # standard deviations; Gaussian noise is beyond them at one of 5e8 sites
LEAST_SITES = 100  # of a cell of the table; fewer tell nothing
LOUD, RELATED = 1.2, 0.1  # times the expected mean square, and correlation, above which a verdict speaks


def defective(r: NDArray) -> NDArray[np.bool_]:
    """Where |r| (H, W) is above FAR at a site and at one of its eight neighbours at most: hot or dead photosites; a star is wider."""
    from scipy.ndimage import convolve

    far = np.abs(r) > FAR
    return far & (convolve(far.astype(np.uint8), np.ones((3, 3), np.uint8), mode="constant") <= 2)


def standardised(
    signal: NDArray, light: NDArray, cfa: Cfa, white_balance: tuple[float, float, float], ratio: float, noise: NoiseModel
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """r (H, W), s, and where a site was measured: neither saturated nor defective.

    Args:
        signal: (H, W), 0 = black, 1 = white of the recorded exposure.
        light: (3, H, W) restored, white-balanced, `ratio` times brighter.
        noise: of the recorded exposure.
    """
    expected = recorded(light, cfa, white_balance).astype(np.float64) / ratio
    s = np.sqrt(np.asarray(noise.variance(expected), np.float64))
    r = (signal - expected) / s
    return r, s, (signal < SATURATED) & (expected < SATURATED) & ~defective(r)


def _neighbour_sums(r: NDArray, where: NDArray, inside: NDArray, step: int) -> tuple[float, int]:
    """Sum and number of r r' over measured neighbours `step` to the right and below, the first of which is `inside`."""
    total, count = 0.0, 0
    for first, second in ((np.s_[:, :-step], np.s_[:, step:]), (np.s_[:-step], np.s_[step:])):
        both = inside[first] & where[second]
        total += float((r[first] * r[second])[both].sum())
        count += int(both.sum())
    return total, count


def residuals(
    signal: NDArray, light: NDArray, cfa: Cfa, white_balance: tuple[float, float, float], ratio: float, noise: NoiseModel
) -> Iterator[dict[str, Any]]:
    """A row per channel and brightness; arguments as of `standardised`.

    Yields:
        channel (R, G, B), low and high (brightness, see EDGES), sites; mean_square and its standard error for white Gaussian
        noise, 1 expected; correlation of next neighbours (any channel) and of next but one, 0 expected; bias, the mean of
        y - A x at the exposure of the result, 1 = white, and its standard error: 0 expected, positive where the result is too dark.
    """
    from scipy.ndimage import uniform_filter

    r, s, where = standardised(signal, light, cfa, white_balance, ratio, noise)
    around = np.stack([uniform_filter(plane, AROUND) for plane in light])
    colours, bright = tile_pattern(np.asarray(cfa), signal.shape), recorded(np.maximum(around, 0), cfa, white_balance)
    for channel, name in enumerate("RGB"):
        for low, high in zip(EDGES, (*EDGES[1:], np.inf), strict=True):
            inside = where & (colours == channel) & (bright >= low) & (bright < high)
            sites = int(inside.sum())
            if sites < LEAST_SITES:
                continue
            square = float(np.square(r[inside]).mean())
            correlation = {}
            for title, step in (("correlation", 1), ("correlation_2", 2)):
                total, count = _neighbour_sums(r, where, inside, step)
                correlation[title] = total / count / square if count and square else float("nan")
            yield {
                "channel": name, "low": low, "high": float(high), "sites": sites, "mean_square": square,
                "mean_square_error": float(np.sqrt(2 / sites)), **correlation,
                "bias": float((r * s)[inside].mean() * ratio), "bias_error": float((s[inside]).mean() * ratio / np.sqrt(sites)),
            }  # fmt: skip


def verdict(mean_square: float, correlation: float, expected: float | None = None) -> str:
    """In words: what residuals of such a mean square and correlation of next neighbours say.

    `expected` is the mean square that the same restoration leaves of noise exactly as told; without it only more than 1 is a fault.
    """
    if not np.isfinite(mean_square):
        return "not measured"
    reasons = []
    if mean_square > LOUD * (1 if expected is None else expected):
        reasons.append("more than the noise was taken away")
    if expected is not None and mean_square < expected / LOUD:
        reasons.append("there was less noise than told")
    if correlation > RELATED:
        reasons.append("what was taken away is smooth, as detail is")
    return "; ".join(reasons) or "good"
