"""Which numbers the noise model of an exposure gets: the most trusted source that knows its camera at its ISO."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, sqrt
from typing import Any

from lowlight_kedro.bounds import Fraction, Positive
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate
from lowlight_kedro.sensor.calibration.record import noise_from_calibrations, noise_from_file
from lowlight_kedro.sensor.cameras import Table, noise_from_table, normalised

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
        values, told = noise_from_calibrations(camera, iso, sources.calibrations, verdict)
        yield values and normalised(values, range_dn), told
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
    for values, told in _answers(camera, iso, range_dn, sources):
        if values:
            return values, told, passed_over
        passed_over.append(told)
    raise ValueError(
        f"nothing tells the noise of {camera} at ISO {iso:g} (" + "; ".join(passed_over) + "); run `kedro run --pipelines calibration` on "
        "flats, darks or pairs of this camera, or give sensor.noise.gain and sensor.noise.read_noise in units of white - black"
    )
