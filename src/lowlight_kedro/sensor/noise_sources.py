"""Which numbers the noise model of an exposure gets: the most trusted source that knows its camera at its ISO, a table of cameras too."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.bounds import Fraction, Positive
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate
from lowlight_kedro.sensor.calibration.record import noise_from_calibrations, noise_from_file

Entry = Mapping[str, Any]
"""One camera of the table, as `conf/base/globals.yml` describes it:

- `bits`: depth of the DN it was measured in.
- `iso`: ascending; None where it is not known which ISO a gain belongs to.
- one column per quantity, a value per ISO: `gain_dn` (DN per electron), `read_noise_dn`, `row_noise_dn` (standard
  deviations), `tail` (Tukey lambda shape); or `lines`, {column: [slope, bias]} with ln value = slope ln gain_dn + bias.
- `gain_switches`: ISOs from which on the sensor works at another conversion gain.
"""

Table = Mapping[str, Entry]
LINEAR = ("tail",)  # columns that may be negative: not interpolated in their logarithm
NOT_COLUMNS = ("iso", "bits", "lines", "gain_switches")


def find_camera(camera: str, table: Table) -> str | None:
    """The longest table name that occurs in `camera` as whole words (case ignored), or None."""
    found = (name for name in table if re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", camera, re.IGNORECASE))
    return max(found, key=len, default=None)


def columns(entry: Entry) -> dict[str, NDArray[np.float64]]:
    """All columns of an entry, `lines` worked out at its gains: sigma = exp(bias) gain^slope (ELD, Wei et al. 2020)."""
    given = {key: np.asarray(values, float) for key, values in entry.items() if key not in NOT_COLUMNS and values is not None}
    lines = entry.get("lines") or {}
    return given | {key: np.exp(bias) * given["gain_dn"] ** slope for key, (slope, bias) in lines.items()}


def _on_a_line(x: float, nodes: NDArray, values: NDArray) -> float:
    """Piecewise linear through (nodes, values); beyond the ends the outermost piece goes on."""
    if len(nodes) == 1:
        return float(values[0])
    left = int(np.clip(np.searchsorted(nodes, x) - 1, 0, len(nodes) - 2))
    fraction = (x - nodes[left]) / (nodes[left + 1] - nodes[left])
    return float(values[left] + fraction * (values[left + 1] - values[left]))


def _measured_side(iso: float, measured: NDArray, switches: Sequence[float]) -> NDArray[np.bool_]:
    """Which measured ISOs have the conversion gain of `iso`; a switch ISO belongs to the side above it."""
    return np.searchsorted(switches, measured, side="right") == np.searchsorted(switches, iso, side="right")


def noise_in_dn(camera: str, iso: float, table: Table) -> dict[str, float]:
    """Every tabulated quantity of `camera` at `iso`, in DN where its name ends so.

    Between measured ISOs log-log (`tail`: linear in log ISO), never across a gain switch: between the last ISO measured
    below a switch and the switch itself the line below it goes on (A7S II at ISO 1800: low gain, from ISO 800 and 1600).

    Raises:
        ValueError: camera not in the table, ISO outside the measured range, or no ISO known for its gains.
    """
    name = find_camera(camera, table)
    if name is None:
        raise ValueError(f"no noise table for camera {camera!r}; known: {', '.join(sorted(table))}")
    entry = table[name]
    if entry.get("iso") is None:
        raise ValueError(f"the noise table of {name} does not say which ISO its gains belong to (ISO {iso:g} was asked for)")
    measured = np.asarray(entry["iso"], float)
    if not measured[0] <= iso <= measured[-1]:
        raise ValueError(f"ISO {iso:g} of {name} is outside the measured range {measured[0]:g} to {measured[-1]:g}")
    side = _measured_side(iso, measured, entry.get("gain_switches") or ())
    if not side.any():
        raise ValueError(f"no ISO of {name} was measured at the conversion gain of ISO {iso:g}")
    x, nodes = float(np.log(iso)), np.log(measured[side])
    return {
        key: _on_a_line(x, nodes, values[side]) if key in LINEAR else float(np.exp(_on_a_line(x, nodes, np.log(values[side]))))
        for key, values in columns(entry).items()
    }


def normalised(noise_dn: Mapping[str, float], range_dn: float) -> dict[str, float]:
    """`{gain_dn, read_noise_dn, tail, ...}` to `{gain, read_noise, tail, ...}`: what is in DN in units of white - black."""
    return {key.removesuffix("_dn"): value / range_dn if key.endswith("_dn") else value for key, value in noise_dn.items()}


def _check_depth(name: str, bits: int | None, range_dn: float) -> None:
    """White - black of a raw of b bits lies between 2^(b-1) and 2^b."""
    if bits is not None and not 2 ** (bits - 1) < range_dn < 2**bits:
        raise ValueError(f"the noise of {name} was measured in {bits}-bit DN, but white - black of this raw is {range_dn:g} DN")


def noise_from_table(camera: str, iso: float, range_dn: float, table: Table) -> tuple[dict[str, float], str]:
    """Noise of an exposure in units of white - black, and which table it is from.

    Raises:
        ValueError: the table does not know the camera at this ISO and bit depth.
    """
    values = noise_in_dn(camera, iso, table)
    name = find_camera(camera, table) or ""
    _check_depth(name, table[name].get("bits"), range_dn)
    return normalised(values, range_dn), f"table {name} at ISO {iso:g}"


KNOWN_TO = {"given|parameters|calibration of .* from flats": 0.02, "calibration of .* from pairs|table": 0.1}
"""Relative standard deviation of the variance that a source tells of a camera: read noise to 1 % where flats and darks of it measured it
(docs/calibration.md), to 5 % from pairs, or from another camera of its kind."""


def variance_error(source: str, black_known: bool = False) -> float | None:
    """How well the variance is known that a source tells; None: not at all, or by this frame itself and the black level of its header.

    Or where darks or masked sites let the black level be known better than by the noise (`black_known`).
    """
    if black_known:
        return None
    known = [error for sources, error in KNOWN_TO.items() if re.match(sources, source)]
    return known[0] if known and "(poor" not in source else None


GIVEN = "parameters sensor.noise.gain and read_noise"
ASSUMED = "assumption (camera unknown): calibrate it for a better result"
Values = dict[str, float]


@dataclass(frozen=True)
class Assumed:
    """A sensor as they mostly are, in units of white - black at ISO 100: gain in proportion to ISO, read noise to ISO^slope."""

    gain: Positive
    read_noise: Positive
    slope: Fraction
    iso: Positive  # taken where the file tells none

    def at(self, iso: float, range_dn: float) -> Values:
        """The noise at an ISO, with that of rounding to whole DN in the read noise."""
        times = (iso if iso > 0 else self.iso) / 100
        return {"gain": self.gain * times, "read_noise": hypot(self.read_noise * times**self.slope, 1 / (range_dn * sqrt(12)))}


@dataclass(frozen=True)
class Sources:
    """All that may know the noise of an exposure, most trusted first.

    Attributes:
        given: gain and read_noise by hand, units of white - black; None where not given.
        calibrations: one {camera, entries} per measured camera; good ones come before the table, poor ones after it.
        table: of published cameras.
        own: what the file tells of itself, {"tag": ..., "image": ...}, measured only if asked.
        assumed: what is taken where nothing else knows; None = such an exposure is refused.
    """

    given: Values | None = None
    calibrations: Sequence[Mapping[str, Any]] = ()
    table: Table = field(default_factory=dict)
    own: Mapping[str, Callable[[], NoiseEstimate | None]] = field(default_factory=dict)
    assumed: Assumed | None = None


def _answers(camera: str, iso: float, range_dn: float, sources: Sources) -> Iterator[tuple[Values | None, str]]:
    """What each source in turn says: values in units of white - black or None, and why."""
    if sources.given:
        yield sources.given, GIVEN
    for verdict in ("good", "poor"):
        values, reason = noise_from_calibrations(camera, iso, sources.calibrations, verdict)
        yield values and normalised(values, range_dn), reason
        if verdict == "good":
            try:
                yield noise_from_table(camera, iso, range_dn, sources.table)
            except ValueError as error:
                yield None, str(error)
    if sources.own:
        yield noise_from_file(sources.own)
    if sources.assumed:
        yield sources.assumed.at(iso, range_dn), ASSUMED


def choose_noise(camera: str, iso: float, range_dn: float, sources: Sources) -> tuple[Values, str, list[str]]:
    """Noise of an exposure in units of white - black, the source it is from, and why each source before it was passed over.

    Raises:
        ValueError: no source knows it; the message holds every reason and how to give the numbers.
    """
    passed_over: list[str] = []
    for values, reason in _answers(camera, iso, range_dn, sources):
        if values:
            return values, reason, passed_over
        passed_over.append(reason)
    raise ValueError(
        f"nothing tells the noise of {camera} at ISO {iso:g} (" + "; ".join(passed_over) + "); run `kedro run --pipelines calibration` on "
        "flats, darks or pairs of this camera, or give sensor.noise.gain and sensor.noise.read_noise in units of white - black"
    )
