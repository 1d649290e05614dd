"""What darks tell of one exposure: which of them fit it, what to take off its photosites, and what that adds to their noise.

Darks of several exposure times are a line: mean dark = bias + time * current, for a frame of any other time. Weighted least squares over
the maps of single times, D(t) = D + c (t - T), with D and T the weighted means. The slope c of black level, rows, columns and glow is
shrunk octave by octave like the parts of a map (`dark_map.shrunk`), so that times that lie close together do no harm; far from the darks
its error grows with (t - T)^2. A hot site has a line of its own, to which one thing is known beforehand: without exposure it shows
nothing, or little.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.special import fdtri

from lowlight_kedro.sensor.dark_map import HOT, KNOWN, ONCE, STRIP, DarkMap, octaves, shrunk
from lowlight_kedro.sensor.frame import UNKNOWN_CAMERA, Frame, range_dn
from lowlight_kedro.sensor.noise import NoiseModel

LEVER = 1.5  # ratio of exposure times from which on a line goes through their darks
WARMTH = 0.05  # of a dark current, by which it differs between darks and frame: the sensor warms up
UNSCALED = 0.5  # of what scaling to another exposure time changes, that it is not known by
About = tuple[str, float, float, tuple[int, int]]  # of a dark: camera, ISO, exposure time in seconds, photosites


@dataclass(frozen=True)
class Darks:
    """Darks of one camera, ISO, exposure time and size; the map is measured, or read, when it is first asked for.

    Attributes:
        measure: gives the map.
        digest: of all that the map depends on, when it is asked for.
    """

    camera: str
    iso: float
    exposure_s: float
    shape: tuple[int, int]
    measure: Callable[[], DarkMap]
    digest: Callable[[], str]

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # a worker measures its own

    def fit(self, camera: str, iso: float, shape: tuple[int, int]) -> bool:
        """Whether they are of that camera, ISO and size."""
        same = self.camera.lower() == camera.lower() and camera != UNKNOWN_CAMERA and self.shape == tuple(shape)
        return same and max(self.iso / iso, iso / self.iso) < SAME_ISO

    @cached_property
    def map(self) -> DarkMap:
        """See `measure`."""
        return self.measure()


def alike(darks: Iterable[tuple[str, About]]) -> dict[About, list[str]]:
    """Names of darks by what those of one map have in common; times that differ beyond six digits are the same."""
    groups: dict[tuple[Any, ...], tuple[About, list[str]]] = {}
    for name, about in darks:
        camera, iso, exposure_s, shape = about
        groups.setdefault((camera, iso, f"{exposure_s:g}", shape), (about, []))[1].append(name)
    return dict(groups.values())


def known(dark_map: DarkMap) -> Darks:
    """A map that is there already."""
    about = dark_map.camera, dark_map.iso, dark_map.exposure_s, dark_map.shape
    return Darks(*about, measure=lambda: dark_map, digest=lambda: "")


@dataclass(frozen=True)
class Choice:
    """The darks that fit an exposure, or None; `why` there are none, and what to be `warned` of; both may be empty."""

    darks: Darks | None = None
    why: str = ""
    warned: str = ""


def _time(exposure_s: float) -> str:
    return f"{exposure_s:g} s" if np.isfinite(exposure_s) else "an unknown time"


def _apart(darks: Darks, exposure_s: float) -> float:
    """How many e-folds of exposure time lie between darks and frame; 0 where one of them does not tell."""
    apart = abs(np.log(darks.exposure_s / exposure_s))
    return float(apart) if np.isfinite(apart) else 0.0


def _why_not(known: Sequence[Darks], camera: str, iso: float, shape: tuple[int, int]) -> str:
    """Why no darks fit, in words that follow "the darks are"."""
    if camera == UNKNOWN_CAMERA:
        return "of a named camera, and the file does not name its own"
    mine = [one for one in known if one.camera.lower() == camera.lower()]
    if not mine:
        return f"of {', '.join(sorted({one.camera for one in known}))}, the frame is of {camera}"
    fitting = [one for one in mine if one.shape == shape]
    if not fitting:
        return f"of {mine[0].shape[0]} x {mine[0].shape[1]} photosites, the frame has {shape[0]} x {shape[1]}"
    return f"of ISO {', '.join(f'{iso:g}' for iso in sorted({one.iso for one in fitting}))}, the frame has ISO {iso:g}"


def _map_or_why(darks: Darks) -> DarkMap | str:
    try:
        return darks.map
    except ValueError as error:
        return str(error)


def _map_by_line(darks: Sequence[Darks], exposure_s: float) -> DarkMap:
    """The line through those that can be used; the map of one time where no others are left.

    Raises:
        ValueError: none can be used.
    """
    tried = [_map_or_why(one) for one in darks]
    maps = [one for one in tried if isinstance(one, DarkMap)]
    if not maps:
        raise ValueError("; ".join(map(str, tried)))
    return dark_map_at(maps, exposure_s) if len({one.exposure_s for one in maps}) > 1 else maps[0]


def _digest_of(darks: Sequence[Darks]) -> str:
    return " ".join(one.digest() for one in darks)


def _by_line(near: Sequence[Darks], exposure_s: float) -> Choice | None:
    """Darks of several times for a frame of another; None where they are of one time, or times are not told."""
    several = [one for one in near if np.isfinite(one.exposure_s)]
    times = sorted(one.exposure_s for one in several)
    if not times or times[-1] < LEVER * times[0] or not np.isfinite(exposure_s):
        return None
    best = min(several, key=lambda one: _apart(one, exposure_s))
    line = replace(
        best, exposure_s=exposure_s, measure=partial(_map_by_line, several, exposure_s), digest=partial(_digest_of, several)
    )  # fmt: skip
    within = times[0] / SAME_TIME <= exposure_s <= times[-1] * SAME_TIME
    ends = " and ".join(_time(time) for time in (times[0], times[-1]))
    outside = f"the frame was exposed for {_time(exposure_s)}, its darks between {ends}: their glow and hot sites are carried on by a line"
    return Choice(line, warned="" if within else outside)


def choose_darks(known: Sequence[Darks], camera: str, iso: float, exposure_s: float, shape: tuple[int, int]) -> Choice:
    """Those of an exposure's camera, size and ISO: of its time, else several times by a line, else of another time, scaled."""
    if not known:
        return Choice()
    near = [one for one in known if one.fit(camera, iso, shape)]
    if not near:
        why = f"the darks are {_why_not(known, camera, iso, shape)}"
        return Choice(None, why, f"restored without darks: {why}")
    best = min(near, key=lambda one: _apart(one, exposure_s))
    if _apart(best, exposure_s) <= np.log(SAME_TIME):
        return Choice(best)
    by_line = _by_line(near, exposure_s)
    if by_line is not None:
        return by_line
    warned = f"the darks were exposed for {_time(best.exposure_s)}, the frame for {_time(exposure_s)}: their glow and hot sites are scaled"
    return Choice(best, warned=warned)


def digest_of_fitting(known: Sequence[Darks], about: Mapping[Any, Any]) -> str | None:
    """The digest of the darks that would be taken off a frame; `about`: its camera, iso, exposure_s, height, width."""
    shape = int(about["height"]), int(about["width"])
    darks = choose_darks(known, about["camera"], about["iso"], about["exposure_s"], shape).darks
    return None if darks is None else darks.digest()


@dataclass(frozen=True)
class DarkSignal:
    """Of one exposure, units of white - black: what it shows without light (H, W), and the standard deviation that this adds (H, W)."""

    signal: NDArray[np.float32]
    std: NDArray[np.float32]

    def taken_off(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """A frame's signal (H, W) without it; a clipped site stays at white, because it says only "at least"."""
        return np.where(signal < 1, signal - self.signal, signal)


def dark_signal(dark_map: DarkMap, frame: Frame, noise: NoiseModel) -> DarkSignal:
    """What a frame shows without light, by a map that fits it.

    Glow and hot sites are dark current: they grow with the exposure time and bring photon noise of their own. What is not known of the
    map counts as noise of each photosite.

    Args:
        noise: of the frame, units of white - black.

    Raises:
        ValueError: the darks have other colour filters.
    """
    if len(dark_map.black) != len(frame.cfa):
        raise ValueError(f"the darks have colour filters of period {len(dark_map.black)}, the frame of {len(frame.cfa)}")
    span, (height, width) = range_dn(frame), dark_map.shape
    times = frame.exposure_s / dark_map.exposure_s
    times = times if np.isfinite(times) else 1.0
    doubt, currents = float(np.hypot(WARMTH, UNSCALED * (times - 1))), dark_map.current()
    signal, variance = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height))
        current = dark_map.spread(currents, rows) / span
        signal[rows] = dark_map.shared(rows) / span + (times - 1) * current
        variance[rows] = (dark_map.shared_std / span) ** 2 + np.square(doubt * current) + _photons(times * current, noise)
    excess = times * dark_map.excess / span
    own = np.maximum(_photons(excess, noise), np.square(dark_map.restless_std / span))
    signal.reshape(-1)[dark_map.sites] += excess
    variance.reshape(-1)[dark_map.sites] += own + np.square(times * dark_map.excess_std / span) + np.square(doubt * excess)
    return DarkSignal(signal, np.sqrt(variance))


def _photons(signal: NDArray, noise: Any) -> NDArray:
    """Variance of the photon noise of a dark current."""
    return np.asarray(noise.variance(signal) - noise.variance(np.zeros((), np.float32)))


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


SAME_ISO, SAME_TIME = 1.01, 1.1  # ratios up to which two are the same
