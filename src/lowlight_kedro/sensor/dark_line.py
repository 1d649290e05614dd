"""Darks of several exposure times as a line: mean dark = bias + time * current, for a frame of any other time.

Weighted least squares over the maps of single times, D(t) = D + c (t - T), with D and T the weighted means. The slope c of black level,
rows, columns and glow is shrunk octave by octave like the parts of a map (`dark_map.shrunk`), so that times that lie close together do
no harm; far from the darks its error grows with (t - T)^2. A hot site has a line of its own, to which one thing is known beforehand:
without exposure it shows nothing, or little.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.special import fdtri

from lowlight_kedro.sensor.dark_map import HOT, KNOWN, ONCE, DarkMap, octaves, shrunk

UNSEEN = 0.5  # of the limit HOT: what is not known of a site that a map does not list
BIASED = 0.1  # of the greatest excess of a site: what it may show without exposure
LEAST_STD = 0.01  # DN that are never known of a map


def _stds(known: Sequence[float], counts: Sequence[int]) -> NDArray:
    """What is not known of a part in each map: as much as in the others, by numbers of darks, because shrinking hides some of it."""
    usual = max(std * np.sqrt(count) for std, count in zip(known, counts, strict=True))
    return np.maximum(usual / np.sqrt(counts), LEAST_STD)


def _levels(slope: NDArray, noise: float) -> tuple[NDArray, float]:
    """Levels of channels shrunk as one number, because rows that are new in every frame move them together; and what is not known."""
    power = float(np.square(slope).mean())
    fraction = max(1 - noise * fdtri(1, KNOWN, ONCE) / power, 0.0) if power > 0 else 0.0
    return fraction * slope, fraction * noise


def _profile(slope: NDArray, noise: float) -> tuple[NDArray, float]:
    """Rows, columns or blocks shrunk octave by octave; and what is not known of them."""
    coefficients = dctn(slope, norm="ortho")
    kept, unknown = shrunk(coefficients, np.full(slope.shape, noise), KNOWN, octaves(*slope.shape))
    return idctn(kept, norm="ortho"), unknown


def _part(parts: NDArray, weights: NDArray, times: NDArray, exposure_s: float, single: bool) -> tuple[NDArray[np.float32], float]:
    """One part of the maps (k, ...) at another time, and the standard deviation of what is not known of it.

    `single`: its values are levels of channels and no profile.
    """
    total = weights.sum()
    middle = weights @ times / total
    lever = float(weights @ np.square(times - middle))
    slope = np.tensordot(weights * (times - middle), parts, 1) / lever
    kept, unknown = _levels(slope, 1 / lever) if single else _profile(slope, 1 / lever)
    ahead = exposure_s - middle
    value = np.tensordot(weights / total, parts, 1) + ahead * kept
    return value.astype(np.float32), float(np.sqrt(1 / total + ahead**2 * unknown))


def _sites(maps: Sequence[DarkMap], exposure_s: float) -> dict[str, Any]:
    """The line of each site that any of the maps lists: Bayesian, with nothing at no exposure as one more measurement."""
    sites = np.unique(np.concatenate([one.sites for one in maps]))
    times = np.array([0.0, *(one.exposure_s for one in maps)])
    values, stds = np.zeros((len(times), len(sites))), np.empty((len(times), len(sites)))
    restless = np.zeros(len(sites))
    for number, one in enumerate(maps, 1):
        at = np.searchsorted(sites, one.sites)
        values[number, at] = one.excess
        stds[number] = UNSEEN * HOT * one.site_std
        stds[number, at] = np.maximum(one.excess_std, LEAST_STD)
        restless[at] = np.maximum(restless[at], one.restless_std)
    stds[0] = np.maximum(BIASED * np.abs(values).max(axis=0), LEAST_STD)
    weights = 1 / np.square(stds)
    total = weights.sum(axis=0)
    mean_time, mean = (weights * times[:, None]).sum(axis=0) / total, (weights * values).sum(axis=0) / total
    apart = times[:, None] - mean_time
    lever = (weights * apart**2).sum(axis=0)
    ahead = exposure_s - mean_time
    excess = mean + ahead * (weights * apart * values).sum(axis=0) / lever
    std = np.sqrt(1 / total + ahead**2 / lever)
    return {"sites": sites, **{
        name: value.astype(np.float32) for name, value in (("excess", excess), ("excess_std", std), ("restless_std", restless))
    }}  # fmt: skip


def dark_map_at(maps: Sequence[DarkMap], exposure_s: float) -> DarkMap:
    """The map of an exposure time, by maps of other times of the same camera, ISO and size.

    Raises:
        ValueError: there are not two different times, or the colour filters differ.
    """
    times = np.array([one.exposure_s for one in maps])
    if not np.isfinite(times).all() or np.ptp(times) == 0:
        raise ValueError(f"a line needs darks of two exposure times, got {', '.join(f'{time:g}' for time in times)} s")
    if len({one.black.shape for one in maps}) > 1:
        raise ValueError("the darks of several exposure times have different colour filters")
    parts: dict[str, Any] = {}
    stds = []
    for number, name in enumerate(("black", "rows", "columns", "glow")):
        weights = 1 / np.square(_stds([float(one.parts_std[number]) for one in maps], [one.count for one in maps]))
        values = np.stack([getattr(one, name) for one in maps]).astype(np.float64)
        parts[name], std = _part(values, weights, times, exposure_s, name == "black")
        stds.append(std)
    return replace(
        maps[0], exposure_s=exposure_s, count=sum(one.count for one in maps), **parts,
        parts_std=np.array(stds), **_sites(maps, exposure_s),
        frames=tuple(name for one in maps for name in one.frames), times_s=tuple(sorted(times.tolist())),
    )  # fmt: skip
