"""Black level and row offsets from masked photosites: those beside the picture, which see no light. Units: DN above the header's black.

A masked site is black_c + row + noise, as every site of its row is without light. Their mean by channel corrects the header's
black level; their means by row, shrunk by their own noise (`dark_map.shrunk`, octave by octave), are offsets of the rows. What lies
beside a picture is not always masked, or is masked badly: it is believed only where it looks like black, and its rows only where the
picture does not contradict them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.special import fdtri

from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.dark_map import KNOWN, ONCE, octaves, shrunk
from lowlight_kedro.sensor.dark_survey import CUT_OFF, INLYING, LEAST_NOISE
from lowlight_kedro.sensor.frame import Frame, Masked, range_dn
from lowlight_kedro.sensor.noise import NoiseModel

LEAST_LINES = 8  # rows or columns of masked sites; fewer are dummies, or too close to the light
CLOSE = 0.01  # of white - black, by which masked sites may differ from the header's black
UNEVEN = 0.25  # standard deviations of a site that lines differ by at most; what differs more is a picture
FLAT = 4.0  # standard deviations by which a line of masked sites may differ from the others: light leaks into the nearest
BRIGHTER = 3.0  # standard deviations of a site by which the darkest of the picture may lie below the masked sites
DARKEST = 0.01  # fraction of the picture's sites that is its darkest
SURE = 3.0  # standard errors by which the picture contradicts the rows of its masked sites


class Rectangle(NamedTuple):
    """A rectangle of the sensor: first row and column, and those after the last."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Band:
    """Masked sites on one side of the picture that look like black.

    Attributes:
        black: (3,) mean of each channel, nan where it has no site. sites: of each channel.
        variance: of one site.
        rows: (H,) mean of each row beside that, None where it does not span all rows. width: sites in each.
    """

    black: NDArray
    sites: NDArray
    variance: float
    rows: NDArray | None
    width: int


def beside(shape: tuple[int, int], visible: Rectangle) -> list[Rectangle]:
    """What lies left and right of the visible area, and above and below it, on a sensor of a shape."""
    top, left, bottom, right = visible
    return [
        Rectangle(top, 0, bottom, left),
        Rectangle(top, right, bottom, shape[1]),
        Rectangle(0, left, top, right),
        Rectangle(bottom, left, shape[0], right),
    ]


def _channels(area: Rectangle, visible: Rectangle, cfa: Cfa) -> NDArray[np.int_]:
    """The channel of each site of an area (h, w), the pattern beginning with the visible area."""
    period = len(cfa)
    rows, columns = np.arange(area.top, area.bottom) - visible.top, np.arange(area.left, area.right) - visible.left
    return np.asarray(cfa)[np.ix_(rows % period, columns % period)]


def _excess(sensor_dn: NDArray, area: Rectangle, visible: Rectangle, black: NDArray) -> NDArray[np.float64]:
    """DN above the header's black (h, w); `black` (p, q) begins with the visible area."""
    rows, columns = np.arange(area.top, area.bottom) - visible.top, np.arange(area.left, area.right) - visible.left
    return sensor_dn[area.top : area.bottom, area.left : area.right] - black[np.ix_(rows % len(black), columns % black.shape[1])]


def _site_std(values: NDArray, period: int) -> float:
    """Noise of one site, from what those of one line (along the first axis) and one channel differ by."""
    return float(np.quantile(np.abs(values[period:] - values[:-period]), 0.95)) / (1.96 * np.sqrt(2))


def _even(values: NDArray, keep: NDArray[np.bool_], std: float) -> NDArray[np.bool_]:
    """Lines along the last axis whose mean is that of the others, as far as noise and what lines differ by allow."""
    count = keep.sum(axis=0)
    means = np.where(keep, values, 0).sum(axis=0) / np.maximum(count, 1)
    middle = np.median(means)
    usual = max(min(1.48 * float(np.median(np.abs(means - middle))), UNEVEN * std), std / np.sqrt(len(values)))
    return np.asarray((np.abs(means - middle) < FLAT * usual) & (count > len(values) / 2))


def _band(sensor_dn: NDArray, area: Rectangle, frame: Frame, visible: Rectangle, darkest: float) -> Band | None:
    """What an area shows, if it looks like black: noise around a level close to the header's, the same in most of its lines."""
    if min(area.bottom - area.top, area.right - area.left) < LEAST_LINES:
        return None
    upright = area.bottom - area.top >= area.right - area.left
    values, channels = _excess(sensor_dn, area, visible, frame.black_level), _channels(area, visible, frame.cfa)
    middle = float(np.median(values))
    std = _site_std(values if upright else values.T, len(frame.cfa))
    stored = sensor_dn[area.top : area.bottom, area.left : area.right]
    cut_off = float((stored == stored.min()).mean()) > CUT_OFF
    if cut_off or abs(middle) > CLOSE * range_dn(frame) or middle > darkest + BRIGHTER * max(std, LEAST_NOISE):
        return None
    keep = np.abs(values - middle) < INLYING * max(std, LEAST_NOISE)
    even = _even(values, keep, std) if upright else _even(values.T, keep.T, std)
    if even.sum() < max(LEAST_LINES, len(even) / 2):
        return None
    keep &= even if upright else even[:, None]
    sites = np.bincount(channels[keep], minlength=3)
    black = np.bincount(channels[keep], values[keep], 3) / np.where(sites, sites, np.nan)
    rest, variance = np.where(keep, values - black[channels], 0), float(values[keep].var())
    spans = area.top <= visible.top and area.bottom >= visible.bottom
    inside = slice(visible.top - area.top, visible.bottom - area.top)
    width = int(even.sum())
    rows = (rest.sum(axis=1) / np.maximum(keep.sum(axis=1), 1))[inside] if spans and upright else None
    return Band(black, sites, variance, rows, width)


def _level(bands: Sequence[Band]) -> tuple[NDArray, float]:
    """Level of each channel (3,), and what is not known of it; shrunk towards the header's by its noise and by what the sides differ by.

    The header's is exact in most cameras: what noise alone would show once in a hundred times is not believed.
    """
    sites = np.array([band.sites for band in bands])
    weight = sites / np.maximum(sites.sum(axis=0), 1)
    levels = np.nan_to_num([band.black for band in bands])
    mean = (weight * levels).sum(axis=0)
    counted = np.mean([band.variance for band in bands]) / np.maximum(sites.sum(axis=0), 1)
    apart = (weight * np.square(levels - mean)).sum(axis=0)
    unknown = float((counted + apart).mean())
    power = float(np.square(mean).mean())
    fraction = max(1 - unknown * fdtri(1, KNOWN, ONCE) / power, 0.0) if power > 0 else 0.0
    return fraction * mean, float(np.sqrt(fraction * unknown))


def _offsets(bands: Sequence[Band]) -> tuple[NDArray, float | None]:
    """Offsets of the rows (H,), and the standard deviation of what is not known of them; None: rows show nothing that is clear.

    What two sides differ by beyond their noise is no offset of the whole row.
    """
    width = sum(band.width for band in bands)
    found = [dct(band.rows - band.rows.mean(), norm="ortho") for band in bands if band.rows is not None]
    mean = sum(band.width * one for band, one in zip(bands, found, strict=True)) / width
    octave = octaves(len(mean))
    noise = np.full(len(mean), np.mean([band.variance for band in bands]) / width)
    for number in range(1, int(octave.max()) + 1) if len(bands) > 1 else ():
        at = octave == number
        differing = sum(band.width / width * np.square(one[at] - mean[at]).mean() for band, one in zip(bands, found, strict=True))
        noise[at] = np.maximum(noise[at], differing / (len(bands) - 1))
    kept, _ = shrunk(mean, noise, KNOWN, octave)
    seen = bool(kept[octave == octave.max()].any())
    return idct(kept, norm="ortho"), _left(mean, kept, noise, octave) if seen else None


def _left(mean: NDArray, kept: NDArray, noise: NDArray, octave: NDArray) -> float:
    """Standard deviation of what is left of the rows: with f of an octave taken off, (1 - f)^2 of their own power and f^2 of the noise."""
    left = 0.0
    for number in range(1, int(octave.max()) + 1):
        at = octave == number
        power, usual = float(np.square(mean[at]).mean()), float(noise[at].mean())
        f = float(kept[at] @ mean[at] / (mean[at] @ mean[at])) if power > 0 else 0.0
        left += at.sum() * ((1 - f) ** 2 * max(power - usual, 0.0) + f**2 * usual)
    return float(np.sqrt(left / len(mean)))


def _contradicts(frame: Frame, rows: NDArray) -> bool:
    """Whether the picture lacks the offsets `rows` for sure: its rows, less those of the same filters beside them, do not follow them."""
    period = len(frame.cfa)
    means = frame.mosaic_dn.mean(axis=1, dtype=np.float64)

    def sharp(line: NDArray) -> NDArray:
        return line[period:-period] - (line[: -2 * period] + line[2 * period :]) / 2

    ours, theirs = sharp(rows), sharp(means)
    power = float(ours @ ours)
    if power == 0:
        return False
    follows = float(ours @ theirs) / power
    error = 1.48 * float(np.median(np.abs(theirs - follows * ours))) / np.sqrt(power)
    return follows + SURE * error < 0.5


def masked_black(
    sensor_dn: NDArray, frame: Frame, visible: Rectangle, areas: Sequence[Rectangle]
) -> tuple[Masked, NDArray, NDArray] | None:
    """What the masked sites tell: facts, level by channel (3,) and offsets of the rows (H,), DN above the header's black.

    None where none of the areas looks like black, or the header has a level for every row, or none at all (it was subtracted).

    Args:
        sensor_dn: photosites of the whole sensor, of which `visible` is the frame.
        areas: where masked sites may lie.
    """
    period = len(frame.cfa)
    if frame.black_level.min() <= 0 or any(period % side for side in frame.black_level.shape):
        return None
    darkest = float(np.quantile(frame.mosaic_dn[::3, ::5], DARKEST)) - float(frame.black_level.mean())
    found = [band for area in areas if (band := _band(sensor_dn, area, frame, visible, darkest))]
    upright = [band for band in found if band.rows is not None]
    bands = upright or found  # rows above and below the picture begin and end a readout: their level is the worse one
    if not bands:
        return None
    black, black_std = _level(bands)
    rows, rows_std = _offsets(upright) if upright else (np.zeros(frame.shape[0]), None)
    if rows_std is not None and _contradicts(frame, rows):
        rows, rows_std = np.zeros_like(rows), None
    count = sum(int(band.sites.sum()) for band in bands)
    facts = Masked(count, tuple(black.tolist()), black_std, float(rows.std()), rows_std)
    return facts, black, rows


def with_masked(frame: Frame, sensor_dn: NDArray, visible: Rectangle, areas: Sequence[Rectangle]) -> Frame:
    """`frame` with the black level that its masked sites tell, by channel and row; itself where they tell none."""
    found = masked_black(sensor_dn, frame, visible, areas)
    if found is None:
        return frame
    facts, black, rows = found
    period = len(frame.cfa)
    level = np.tile(frame.black_level, (period // len(frame.black_level), period // frame.black_level.shape[1]))
    level = level + black[np.asarray(frame.cfa)]
    if rows.any():
        level = level[np.arange(len(rows)) % period] + rows[:, None]
    return replace(frame, black_level=level.astype(np.float32), masked=facts)


def noise_beside(noise: NoiseModel, frame: Frame) -> NoiseModel:
    """The noise of a frame whose masked sites told its row offsets and its black level: what is left of both."""
    if frame.masked is None or not hasattr(noise, "row_noise"):
        return noise
    span, model = range_dn(frame), noise
    left: dict[str, Any] = {"black_error": min(getattr(model, "black_error", 0.0), frame.masked.black_std / span)}
    if frame.masked.rows_std is not None:
        left["row_noise"] = frame.masked.rows_std / span
    return replace(model, **left)  # type: ignore[type-var]
