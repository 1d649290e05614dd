"""What a sensor shows without light, from a few darks: black level, rows, columns, glow, hot sites. Units: DN above the header's black.

A dark is d = black_c + row + column + glow + site + noise. Each part is the mean over the darks, shrunk by its own noise: with P the power
of the mean in a band of frequencies, N that of its noise, (1 - N / P)+ of it is kept (James and Stein 1961, octave by octave). The noise
is what the darks differ by, so offsets of rows that are new in every frame are not taken for the sensor's own. One dark cannot tell them
apart: of its rows counts what its glow shows beside them, where nothing is constant along the row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, dctn, idct, idctn
from scipy.special import fdtri

from lowlight_kedro.sensor.cfa import tile_pattern
from lowlight_kedro.sensor.dark_survey import BLOCK, Survey, excess_of, spread_out, survey
from lowlight_kedro.sensor.frame import Frame, mosaic_only

HOT = 5.0  # standard deviations of its mean by which a site must differ from its surroundings
RESTLESS = 16.0  # times the variance of others: a site that blinks
ONCE = 0.99  # probability that noise alone stays below what is believed
STEADY = 4.0  # degrees of freedom that say that columns and glow do not change from frame to frame; rows do
DARKEST = 0.05  # fraction of the blocks that show no dark current
KNOWN = 1e4  # degrees of freedom of a variance that is known
STRIP = 20 * BLOCK  # rows at a time


@dataclass(frozen=True)
class DarkMap:
    """What a camera shows without light at an ISO and exposure time, DN above the black level of its header.

    Attributes:
        camera, iso, exposure_s: of the darks; exposure_s nan where they do not tell it.
        shape: (H, W) of the visible area.
        count: of darks.
        black: (p, q), a level for each channel on the pattern of the colour filters.
        rows, columns: (H,), (W,) offsets.
        glow: (H // BLOCK, W // BLOCK) means of blocks, beside rows and columns.
        parts_std: what is not known of black, rows, columns and glow, (4,): standard deviation of one site.
        sites: (K,) places in the flattened frame of hot, cold and restless sites.
        excess: (K,) what they show beside all that.
        excess_std: (K,) what is not known of it.
        restless_std: (K,) noise of one exposure there beyond that of other sites.
        site_std: what is not known of a site that is not listed.
        frames: names of the darks.
        times_s: their exposure times, where they are several (`dark_signal.dark_map_at`); empty: `exposure_s`.
    """

    camera: str
    iso: float
    exposure_s: float
    shape: tuple[int, int]
    count: int
    black: NDArray[np.float32]
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]
    glow: NDArray[np.float32]
    parts_std: NDArray[np.float64]
    sites: NDArray[np.int64]
    excess: NDArray[np.float32]
    excess_std: NDArray[np.float32]
    restless_std: NDArray[np.float32]
    site_std: float
    frames: tuple[str, ...] = ()
    times_s: tuple[float, ...] = ()

    @property
    def shared_std(self) -> float:
        """What is not known of black, rows, columns and glow together: standard deviation of one site."""
        return float(np.sqrt(np.square(self.parts_std).sum()))

    def shared(self, rows: slice) -> NDArray[np.float32]:
        """What black, rows, columns and glow show together in some rows, (h, W)."""
        first, last, _ = rows.indices(self.shape[0])
        pattern = np.roll(self.black, -first, axis=0)
        fixed = tile_pattern(pattern, (last - first, self.shape[1])) + self.rows[rows, None] + self.columns
        return fixed + self.spread(self.glow, rows)

    def spread(self, blocks: NDArray[np.float32], rows: slice) -> NDArray[np.float32]:
        """Values of blocks in some rows of the frame, (h, W)."""
        return spread_out(spread_out(blocks, self.shape[0], 0)[rows], self.shape[1], 1)

    def current(self) -> NDArray[np.float32]:
        """Dark current by block, from the darkest places of the frame up: what is smooth of rows, columns and glow."""
        down, right = self.glow.shape
        rows, columns = (
            line[: count * BLOCK].reshape(count, BLOCK).mean(axis=1) for line, count in ((self.rows, down), (self.columns, right))
        )
        smooth = self.glow + rows[:, None] + columns
        return np.maximum(smooth - np.quantile(smooth, DARKEST), 0).astype(np.float32)


def octaves(*shape: int) -> NDArray[np.int_]:
    """The octave of each frequency of a cosine transform: 1, 2 to 3, 4 to 7, ...; of the highest along any axis; 0 for the mean."""
    highest = np.max(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=0)
    return np.ceil(np.log2(highest + 1)).astype(int)


def shrunk(mean: NDArray, noise: NDArray, degrees: float, octave: NDArray) -> tuple[NDArray, float]:
    """Coefficients of a mean, each octave times (1 - F N / P)+, and the variance per coefficient of what is not known.

    F is what noise alone exceeds once in a hundred times (Fisher's distribution): few coefficients of few darks have to show more.

    Args:
        mean: coefficients, orthonormal.
        noise: their noise variance, measured with so many `degrees` of freedom each.
    """
    kept, unknown = np.zeros_like(mean), 0.0
    for number in range(1, int(octave.max()) + 1):
        at = octave == number
        seen, power, usual = mean[at] ** 2 + noise[at], float(np.mean(mean[at] ** 2)), float(noise[at].mean())
        count = max(seen.sum() ** 2 / np.square(seen).sum(), 1.0)  # of those among which the power is spread
        fraction = max(1 - usual * fdtri(count, count * degrees, ONCE) / power, 0.0) if power > 0 else 0.0
        kept[at], unknown = fraction * mean[at], unknown + at.sum() * fraction * usual
    return kept, float(unknown) / mean.size


def _noise_of(coefficients: NDArray, floor: float, steady: float) -> NDArray:
    """Noise variance of the mean of n sets of coefficients (n, ...): what they differ by, at least that of single sites.

    `steady`: so many degrees of freedom say beforehand that it is no more than that.
    """
    count = len(coefficients)
    if count == 1:
        return np.full(coefficients.shape[1:], floor)
    differing = coefficients.var(axis=0, ddof=1) / count
    return np.maximum((steady * floor + (count - 1) * differing) / (steady + count - 1), floor)


def _beside(found: NDArray, mean: NDArray, floor: float, octave: NDArray) -> NDArray:
    """How much of each octave of the rows (H, 1 + BESIDE) is glow, by the waves along the row: glow is not constant there, a row is."""
    fraction = np.zeros_like(mean)
    for number in range(1, int(octave.max()) + 1):
        at = octave == number
        power, glow = float(np.mean(mean[at] ** 2)), float(np.mean(found[at, 1:] ** 2))
        fraction[at] = min(max(glow - 2 * floor, 0.0) / power, 1.0) if power > 0 else 0.0
    return fraction


def _rows(surveys: Sequence[Survey], floor: float) -> tuple[NDArray, float]:
    """Offsets of rows, as far as the darks agree on them, or glow explains them; the variance of what is not known."""
    found = dct(np.stack([one.rows for one in surveys]), axis=1, norm="ortho")
    mean, octave = found[..., 0].mean(axis=0), octaves(found.shape[1])
    by_glow = _beside(found.mean(axis=0), mean, floor, octave)
    kept, unknown = by_glow * mean, float((by_glow * (1 - by_glow) * mean**2).mean())
    if len(surveys) > 1:
        agreed, rest = shrunk(mean, _noise_of(found[..., 0], floor, 0), len(surveys) - 1, octave)
        kept, unknown = np.where(np.abs(agreed) > np.abs(kept), agreed, kept), max(rest, unknown if not agreed.any() else 0.0)
    return idct(kept, norm="ortho"), unknown


def _black(surveys: Sequence[Survey], variance: float) -> tuple[NDArray, float]:
    """Level of each channel, shrunk towards the header's, which is exact in most cameras; the variance of what is not known.

    Rows that are new in every frame move all of it; their variance is seen between neighbouring rows, where glow cancels.
    """
    levels, count = np.stack([one.black for one in surveys]), len(surveys)
    height, width = len(surveys[0].rows), len(surveys[0].columns)
    row = float(np.mean([np.var(np.diff(one.rows[:, 0])) / 2 for one in surveys]))
    floor = (max(row, variance / width) / height) / count
    noise, mean = float(_noise_of(levels, floor, STEADY).mean()), levels.mean(axis=0)
    degrees, power = STEADY + count - 1 if count > 1 else KNOWN, float(np.mean(mean**2))
    fraction = max(1 - noise * fdtri(1, degrees, ONCE) / power, 0.0) if power > 0 else 0.0
    return fraction * mean, fraction * noise


def _means(surveys: Sequence[Survey]) -> dict[str, Any]:
    """The parts of a `DarkMap` that many sites share."""
    count, variance = len(surveys), float(np.mean([np.median(one.variance) for one in surveys]))
    height, width = len(surveys[0].rows), len(surveys[0].columns)
    degrees = count - 1 + STEADY if count > 1 else KNOWN
    rows, row_error = _rows(surveys, variance / width / count)
    columns = dct(np.stack([one.columns for one in surveys]), axis=1, norm="ortho")
    kept, column_error = shrunk(columns.mean(axis=0), _noise_of(columns, variance / height / count, STEADY), degrees, octaves(width))
    blocks = dctn(np.stack([one.blocks for one in surveys]), axes=(1, 2), norm="ortho")
    noise = _noise_of(blocks, variance / BLOCK**2 / count, STEADY)
    glow, glow_error = shrunk(blocks.mean(axis=0), noise, degrees, octaves(*blocks.shape[1:]))
    black, black_error = _black(surveys, variance)
    return {
        "black": black.astype(np.float32), "rows": rows.astype(np.float32),
        "columns": idct(kept, norm="ortho").astype(np.float32), "glow": idctn(glow, norm="ortho").astype(np.float32),
        "parts_std": np.sqrt([black_error, row_error, column_error, glow_error]),
    }  # fmt: skip


def _sites(mean: NDArray, squares: NDArray, variance: NDArray, count: int) -> dict[str, Any]:
    """Hot, cold and restless sites, from the mean of what is left of each (H, W) and the sum of squares of its deviations.

    With one dark nobody knows whether a site is hot or was only noisy once: what it shows is not known at all.
    """
    found: dict[str, list[NDArray]] = {"sites": [], "excess": [], "excess_std": [], "restless_std": []}
    for top in range(0, len(mean), STRIP):
        part = slice(top, top + STRIP)
        usual = spread_out(spread_out(variance, len(mean), 0)[part], mean.shape[1], 1)
        own = squares[part] / max(count - 1, 1)
        restless = own > RESTLESS * usual
        own = np.where(restless, own, usual)
        hot = np.abs(mean[part]) > HOT * np.sqrt(own / count)
        rows, columns = np.nonzero(hot | restless)
        excess = np.where(hot, mean[part], 0)[rows, columns]
        found["sites"].append((rows + top) * mean.shape[1] + columns)
        found["excess"].append(excess)
        found["excess_std"].append(np.sqrt(own[rows, columns] / count) if count > 1 else np.abs(excess))
        found["restless_std"].append(np.sqrt(np.where(restless, own - usual, 0)[rows, columns]))
    joined = {name: np.concatenate(values) for name, values in found.items()}
    return {name: values.astype(np.int64 if name == "sites" else np.float32) for name, values in joined.items()}


def _accumulated(darks: Iterator[Frame], shared: DarkMap) -> tuple[NDArray, NDArray]:
    """Mean and sum of squared deviations of what each site shows beside what it shares with others (Welford 1962)."""
    mean, squares = np.zeros(shared.shape, np.float32), np.zeros(shared.shape, np.float32)
    for number, dark in enumerate(darks, 1):
        signal = excess_of(dark)
        for top in range(0, len(signal), STRIP):
            part = slice(top, top + STRIP)
            rest = signal[part] - shared.shared(part)
            before = rest - mean[part]
            mean[part] += before / number
            squares[part] += before * (rest - mean[part])
    return mean, squares


def _surveyed(darks: Sequence[Callable[[], Frame]], names: Sequence[str]) -> tuple[dict[str, Survey], Frame, list[str]]:
    """By name what each dark shows, the last of them, and why others are left out.

    Raises:
        ValueError: none of them can be used.
    """
    found: dict[str, Survey] = {}
    left_out: list[str] = []
    last: Frame | None = None
    for dark, name in zip(darks, names, strict=True):
        try:
            frame = mosaic_only(dark())
            if last is not None and frame.shape != last.shape:
                raise ValueError(f"it has {_size(frame)} photosites, the others {_size(last)}")
            if last is not None and frame.cfa != last.cfa:
                raise ValueError("its colour filters are not those of the others")
            found[name] = survey(frame)
        except ValueError as error:
            left_out.append(f"dark {name} is left out: {error}")
            continue
        last = frame
    if last is None:
        raise ValueError("; ".join(left_out) or "there is no dark")
    return found, last, left_out


def _size(frame: Frame) -> str:
    return " x ".join(map(str, frame.shape))


def measure_dark_map(darks: Sequence[Callable[[], Frame]], names: Sequence[str]) -> tuple[DarkMap, list[str]]:
    """The map of darks of one camera, ISO and exposure time, opened one at a time, twice; and why some were left out.

    Raises:
        ValueError: none of them can be used.
    """
    found, about, left_out = _surveyed(darks, names)
    surveys, count = list(found.values()), len(found)
    nothing: Any = np.zeros(0, np.float32)
    shared = DarkMap(
        about.camera, about.iso, about.exposure_s, about.shape, count, **_means(surveys),
        sites=nothing.astype(np.int64), excess=nothing, excess_std=nothing, restless_std=nothing, site_std=0.0, frames=tuple(found),
    )  # fmt: skip
    mean, squares = _accumulated((dark() for dark, name in zip(darks, names, strict=True) if name in found), shared)
    variance = np.mean([one.variance for one in surveys], axis=0).astype(np.float32)
    site_std = float(np.sqrt(np.median(variance) / count))
    return replace(shared, **_sites(mean, squares, variance, count), site_std=site_std), left_out
