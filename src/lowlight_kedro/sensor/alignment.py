"""Whether two exposures show the same still scene: one verdict on the pair, and where they differ by more than noise and a pixel of
misalignment explain.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.bounds import Fraction, NotNegative, Positive
from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.registration import (
    BLOCK,
    Ratio,
    any_in,
    binned,
    measure_ratio,
    nearest_phase_keeping,
    noise_variance,
    overlap,
    register,
    robust_sd,
    superpixel_size,
)

SIGNIFICANT = 5.5  # standard deviations; 3 million superpixels of white noise hold one beyond 5.2
WINSOR = 4.0  # standard deviations at which single superpixels (hot pixels) are cut off
SLACK = 1.0  # superpixels by which the frames may locally be off
UNEVEN = 0.02  # of the signal: flicker, flare and shutter that a still scene may show
TINY = 1e-20  # variance of frames without any noise
NEEDED = {1: 6, 2: 2, 4: 1, BLOCK: 1}  # by scale in superpixels: how many cells of a block must stand out


def _room(light: NDArray, scale: int) -> tuple[NDArray, NDArray]:
    """How far below and above a cell its neighbours lie, for a misalignment of SLACK superpixels."""
    from scipy.ndimage import maximum_filter, minimum_filter  # slow to import

    fraction = np.float32(min(1.0, SLACK / scale))
    return (minimum_filter(light, 3) - light) * fraction, (maximum_filter(light, 3) - light) * fraction


def _standing_out(residual: NDArray, light: NDArray, variance: NDArray, scale: int, slope: float) -> NDArray[np.bool_]:
    """Cells of `scale` superpixels whose mean residual is beyond noise and misalignment."""
    cell, clean = binned(residual, scale), binned(light, scale)
    deviation = np.sqrt(binned(variance, scale) / scale**2 + (UNEVEN * slope * clean) ** 2 + TINY)
    below, above = (slope * room for room in _room(clean, scale))
    spread = robust_sd(cell / np.sqrt(deviation**2 + np.maximum(above, -below) ** 2))
    excess = np.maximum(cell - above, below - cell)
    # noise correlated along rows adds up in cells: up to a factor of two is believed to be noise
    return excess > SIGNIFICANT * np.clip(spread, 1, 2) * deviation


def moving_blocks(short: NDArray, long: NDArray, usable: NDArray[np.bool_], ratio: Ratio) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Blocks of 8 superpixels that moved or changed, and blocks that could be tested.

    Args:
        short, long: aligned images (H, W), 0 = black; `usable` is False where either is saturated.

    Returns:
        Two masks (H // 8, W // 8). Differences are looked for at 1, 2, 4 and 8 superpixels: the coarse scales see through
        noise, the fine ones see texture that moved. The noise is measured on the pair (`noise_variance`).
    """
    slope = np.float32(1 / ratio.value)
    residual = np.where(usable, short - slope * long - np.float32(ratio.offset), 0).astype(np.float32)
    variance = noise_variance(residual, long, usable)
    below, above = (slope * room for room in _room(long, 1))
    limit = WINSOR * np.sqrt(variance + (UNEVEN * slope * long) ** 2)
    tested = binned(usable.astype(np.float32), BLOCK) > 0.5
    moved = np.zeros(tested.shape, bool)
    for scale, needed in NEEDED.items():
        part = residual if scale == 1 else np.clip(residual, below - limit, above + limit)
        out = _standing_out(part, long, variance, scale, float(slope))
        count = binned(out.astype(np.float32), BLOCK // scale) * (BLOCK // scale) ** 2
        moved |= (count >= needed - 0.5)[: tested.shape[0], : tested.shape[1]]
    return moved & tested, tested


SATURATED = 0.9  # of the white level: sensors bend before they clip
PEAK = 8.0  # standard deviations; the largest of 10 million values of white noise is 5.3
REACH = 2  # superpixels that a demosaicer looks around
SURE = 5.0  # standard errors of the slope above 0 that make a signal


@dataclass(frozen=True)
class PairLimits:
    """What a usable pair may show.

    Attributes:
        max_ratio_error: |measured ratio over nominal one, or its inverse| - 1.
        max_shift: length of the shift, photosites.
        max_moving: fraction of the tested blocks that moved.
    """

    max_ratio_error: Positive
    max_shift: NotNegative
    max_moving: Fraction


@dataclass(frozen=True)
class PairCheck:
    """What was measured on a pair; nan where it could not be.

    Attributes:
        exposure_ratio: nominal. measured_ratio, ratio_error: measured, and its standard error.
        offset: signal of the short exposure in the dark, units of white - black.
        shift_y, shift_x: `long[y + shift_y, x + shift_x]` meets `short[y, x]`, whole photosites that keep the colours in phase.
        residual_y, residual_x: what of the shift remains after that, photosites.
        peak: of the registration, standard deviations.
        moving_fraction: fraction of the tested blocks that moved.
        static: blocks of `block` photosites of the overlap that stand still (see `in_sites`).
        verdict: `ok` or `failed`; reason: why it failed.
    """

    exposure_ratio: float
    measured_ratio: float = float("nan")
    ratio_error: float = float("nan")
    offset: float = float("nan")
    shift_y: int = 0
    shift_x: int = 0
    residual_y: float = float("nan")
    residual_x: float = float("nan")
    peak: float = float("nan")
    moving_fraction: float = float("nan")
    block: int = 0
    static: NDArray[np.bool_] | None = None
    verdict: str = "failed"
    reason: str = ""


@dataclass(frozen=True)
class Aligned:
    """The common part of two frames in superpixels."""

    short: NDArray[np.float32]
    long: NDArray[np.float32]
    usable: NDArray[np.bool_]


def aligned(short: NDArray, long: NDArray, cfa: Cfa, shift: tuple[int, int]) -> Aligned:
    """Superpixels of the overlap of two normalised mosaics (H, W); `usable` where neither holds a saturated site."""
    side = superpixel_size(cfa)
    here, there = overlap(short.shape, shift, len(cfa))
    parts = short[here], long[there]
    usable = ~(any_in(parts[0] >= SATURATED, side) | any_in(parts[1] >= SATURATED, side))
    return Aligned(binned(parts[0], side), binned(parts[1], side), usable)


def _problem(check: PairCheck, limits: PairLimits) -> str:
    """Why the pair cannot be used, worst first; empty if it can."""
    ratio, sd, nominal = check.measured_ratio, check.ratio_error, check.exposure_ratio
    length = float(np.hypot(check.shift_y + check.residual_y, check.shift_x + check.residual_x))
    if not ratio > SURE * sd:
        return "no signal: the short exposure does not follow the long one"
    if check.peak < PEAK:
        return f"the frames cannot be registered (peak of {check.peak:.1f} standard deviations, expected {PEAK:g}): another scene?"
    if length > limits.max_shift:
        return f"shifted by {length:.1f} photosites, allowed {limits.max_shift:g}"
    if check.moving_fraction > limits.max_moving:
        return f"{check.moving_fraction:.0%} of the frame moved, allowed {limits.max_moving:.0%}"
    found = f"signal ratio {ratio:.4g} +- {sd:.2g} against {nominal:.4g} by the headers"
    if sd > limits.max_ratio_error * ratio:
        return f"{found}, too uncertain: too dark, or parts of the frame changed"
    error = max(ratio / nominal, nominal / ratio) - 1
    if error > limits.max_ratio_error:
        return f"{found}, off by {error:.0%}, allowed {limits.max_ratio_error:.0%}: wrong exposure time?"
    return ""


def _measured(short: NDArray, long: NDArray, cfa: Cfa, exposure_ratio: float) -> PairCheck:
    side = superpixel_size(cfa)
    # clipped alike, so that highlights of the long exposure look the same in both
    found = register(binned(np.minimum(short * np.float32(exposure_ratio), 1), side), binned(np.minimum(long, 1), side))
    sites = (found.shift[0] * side, found.shift[1] * side)
    shift = nearest_phase_keeping(sites, cfa)
    check = PairCheck(
        exposure_ratio, peak=found.peak, block=BLOCK * side, shift_y=shift[0], shift_x=shift[1],
        residual_y=round(sites[0] - shift[0], 3), residual_x=round(sites[1] - shift[1], 3),
    )  # fmt: skip
    parts = aligned(short, long, cfa, shift)  # a correlation's shift is at most half of the frame, so something overlaps
    ratio = measure_ratio(parts.short, parts.long, parts.usable, exposure_ratio)
    if ratio is None:
        return check
    moved, tested = moving_blocks(parts.short, parts.long, parts.usable, ratio)
    return replace(
        check, measured_ratio=ratio.value, ratio_error=ratio.standard_error, offset=ratio.offset,
        moving_fraction=float(moved.sum() / max(tested.sum(), 1)), static=~moved,
    )  # fmt: skip


def check_pair(short: NDArray, long: NDArray, cfa: Cfa, exposure_ratio: float, limits: PairLimits) -> PairCheck:
    """Measure shift, signal ratio and motion between two exposures of one scene, and judge them.

    Args:
        short, long: normalised mosaics (H, W) of one camera, 0 = black, 1 = white of each exposure.
        exposure_ratio: how much more signal the long exposure should hold.

    Returns:
        A verdict with reason; never raises on frames that merely do not fit.
    """
    if short.shape != long.shape:
        return PairCheck(exposure_ratio, reason=f"the frames differ in size: {short.shape} and {long.shape}")
    check = _measured(short, long, cfa, exposure_ratio)
    if check.static is None:
        return replace(check, reason="too little of the frames is unsaturated to compare them")
    problem = _problem(check, limits)
    return replace(check, verdict="failed" if problem else "ok", reason=problem)


def in_sites(mask: NDArray[np.bool_], side: int, shape: tuple[int, int], shift: tuple[int, int], cfa: Cfa) -> NDArray[np.bool_]:
    """A mask of squares of `side` photosites of the overlap, per photosite of the short frame; False outside."""
    (rows, columns), _ = overlap(shape, shift, len(cfa))
    sites = np.zeros(shape, bool)
    whole = mask.repeat(side, 0).repeat(side, 1)
    sites[rows.start : rows.start + whole.shape[0], columns.start : columns.start + whole.shape[1]] = whole
    return sites


def comparable_sites(
    short: NDArray, long: NDArray, cfa: Cfa, shift: tuple[int, int], ratio: float | None
) -> NDArray[np.bool_]:  # fmt: skip
    """Photosites of the short frame (H, W) on which the two exposures can be compared.

    That is: inside the overlap, at least REACH superpixels from a saturated site, for demosaicing spreads it, and not
    in or next to a moving block, for an object ends in a block that barely differs.

    Args:
        short, long: normalised mosaics (H, W).
        shift: whole photosites, in phase, as measured by `check_pair`.
        ratio: its measured ratio; None = the pair was not checked, and motion is not looked for.
    """
    from scipy.ndimage import binary_dilation  # slow to import

    parts, side = aligned(short, long, cfa, shift), superpixel_size(cfa)
    around = np.ones((3, 3), bool)
    kept = in_sites(~binary_dilation(~parts.usable, around, REACH), side, short.shape, shift, cfa)
    if ratio is None:
        return kept
    line = measure_ratio(parts.short, parts.long, parts.usable, ratio)
    if line is None:
        return np.zeros(short.shape, bool)
    moved, _ = moving_blocks(parts.short, parts.long, parts.usable, line)
    return kept & in_sites(~binary_dilation(moved, around), BLOCK * side, short.shape, shift, cfa)
