"""Estimates as they are stored, in DN, and what is known of a camera at an ISO from them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points
from lowlight_kedro.sensor.frame import UNKNOWN_CAMERA

METHODS = ("flats", "pairs", "image", "tag")  # by trust
PER_CHANNEL = ("black_error", "channel_gain")
IN_DN = ("gain", "read_noise", "row_noise")
NEIGHBOUR = 2.1  # highest ratio of two measured ISOs between which one may interpolate: a little over one stop
SAME_ISO = 1.01

Entry = Mapping[str, Any]


def to_entry(estimate: NoiseEstimate, *, iso: float, method: str, range_dn: float, frames: Sequence[str]) -> dict[str, Any]:
    """The estimate of one method at one ISO as JSON would write it: DN for what scales with white - black.

    `points` stay in units of white - black, `range_dn` apart.
    """
    entry: dict[str, Any] = {"iso": iso, "method": method, "verdict": estimate.verdict, "reason": estimate.reason}
    for name in IN_DN:
        value, error = getattr(estimate, name), getattr(estimate, f"{name}_error")
        entry |= {f"{name}_dn": value and value * range_dn, f"{name}_dn_error": error and error * range_dn}
    for name in PER_CHANNEL:
        for suffix in ("", "_error"):
            values = getattr(estimate, name + suffix)
            entry[f"{name}_dn{suffix}"] = values and [value * range_dn if np.isfinite(value) else None for value in values]
    return entry | {
        "tail": estimate.tail, "tail_error": estimate.tail_error,
        "range_dn": range_dn, "frames": list(frames), "points": {name: values.tolist() for name, values in vars(estimate.points).items()},
    }  # fmt: skip


def from_entry(entry: Entry) -> NoiseEstimate:
    """The estimate that `to_entry` stored."""
    span = entry["range_dn"]
    values: dict[str, Any] = {}
    for suffix in ("", "_error"):
        for name in IN_DN:
            stored = entry[f"{name}_dn{suffix}"]
            values[name + suffix] = stored and stored / span
        for name in PER_CHANNEL:
            stored = entry[f"{name}_dn{suffix}"]
            values[name + suffix] = stored and tuple(np.nan if value is None else value / span for value in stored)
    return NoiseEstimate(
        **values, tail=entry["tail"], tail_error=entry["tail_error"],
        points=Points(**{name: np.asarray(values, float) for name, values in entry["points"].items()}),
        verdict=entry["verdict"], reason=entry["reason"],
    )  # fmt: skip


def _known_at(iso: float, entries: Sequence[Entry]) -> tuple[dict[str, float], str] | None:
    """Noise in DN at `iso` from entries of one method, log-log interpolated between near neighbours."""
    measured = sorted(entries, key=lambda entry: entry["iso"])
    below = [entry for entry in measured if entry["iso"] <= iso * SAME_ISO]
    above = [entry for entry in measured if entry["iso"] >= iso / SAME_ISO]
    if not below or not above or above[0]["iso"] > below[-1]["iso"] * NEIGHBOUR:
        return None
    low, high = below[-1], above[0]
    fraction = 0.0 if low["iso"] == high["iso"] else np.log(iso / low["iso"]) / np.log(high["iso"] / low["iso"])
    values = {}
    for key in (*(f"{name}_dn" for name in IN_DN), "tail"):
        if low[key] is None or high[key] is None:
            continue
        positive = min(low[key], high[key]) > 0 and key != "tail"
        values[key] = float(
            np.exp((1 - fraction) * np.log(low[key]) + fraction * np.log(high[key]))
            if positive
            else (1 - fraction) * low[key] + fraction * high[key]
        )
    between = f"ISO {low['iso']:g}" if low is high else f"between ISO {low['iso']:g} and {high['iso']:g}"
    return values, f"{between} ({low['verdict']}: {low['reason']})"


def noise_from_calibrations(
    camera: str, iso: float, calibrations: Sequence[Mapping[str, Any]], verdict: str
) -> tuple[dict[str, float] | None, str]:
    """Noise in DN from the most trusted method that has entries of `verdict` at `iso`, and which; or None and why not.

    Args:
        calibrations: one {camera, entries} per camera.
    """
    if camera == UNKNOWN_CAMERA:
        return None, f"{verdict} calibrations: the file does not name its camera"
    mine = [entry for record in calibrations if record["camera"].lower() == camera.lower() for entry in record["entries"]]
    fitting = [entry for entry in mine if entry["verdict"] == verdict]
    for method in METHODS:
        found = _known_at(iso, [entry for entry in fitting if entry["method"] == method])
        if found:
            return found[0], f"calibration of {camera} from {method}, {found[1]}"
    isos = ", ".join(f"{value:g}" for value in sorted({entry["iso"] for entry in fitting}))
    return None, f"{verdict} calibrations of {camera}: " + (f"only at ISO {isos}, not at {iso:g}" if isos else "none")


def noise_from_file(own: Mapping[str, Callable[[], NoiseEstimate | None]]) -> tuple[dict[str, float] | None, str]:
    """Noise in units of white - black from what one file tells of itself (`{"tag": ..., "image": ...}`), or None and why not."""
    reasons = []
    for source, measure in own.items():
        try:
            estimate = measure()
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:  # a frame of one value has nothing to fit
            reasons.append(f"{source}: it cannot be measured ({error})")
            continue
        if estimate is not None and estimate.verdict != "unusable":
            return {"gain": estimate.gain, "read_noise": estimate.read_noise}, f"{source} ({estimate.verdict}: {estimate.reason})"
        reasons.append(f"{source}: {estimate.reason if estimate else 'the file has none'}")
    return None, "; ".join(reasons)
