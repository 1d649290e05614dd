"""Calibrations survive storage, and are looked up honestly."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points
from lowlight_kedro.sensor.calibration.record import from_entry, noise_from_calibrations, to_entry
from lowlight_kedro.sensor.noise_sources import ASSUMED, GIVEN, Sources, choose_noise, variance_error

RANGE = 15871.0
ESTIMATE = NoiseEstimate(
    gain=1e-4, gain_error=1e-6, read_noise=4e-4, read_noise_error=1e-5, row_noise=5e-5,
    row_noise_error=1e-6, tail=-0.04, tail_error=0.01,
    black_error=(1e-5, -2e-5, 0.0), black_error_error=(1e-6, 1e-6, 1e-6),
    channel_gain=(1.1e-4, 1e-4, float("nan")), channel_gain_error=(1e-6, 1e-6, float("nan")),
    points=Points(np.array([0.1]), np.array([1e-5]), np.array([1e-7])),
    verdict="good", reason="the gain is known to 1.0%",
)  # fmt: skip
TABLE = {"Acme One": {"bits": 14, "iso": [100, 6400], "gain_dn": [0.1, 6.4], "read_noise_dn": [1.0, 8.0]}}


def entry(iso=1600.0, method="flats", **changes):
    return to_entry(replace(ESTIMATE, **changes), iso=iso, method=method, range_dn=RANGE, frames=["a", "b"])


def camera(*entries, name="Acme One"):
    return {"camera": name, "entries": list(entries)}


def test_stored_and_read_back():
    back = from_entry(json.loads(json.dumps(entry())))
    for name, value in vars(ESTIMATE).items():
        if name == "points":
            assert all(np.array_equal(getattr(back.points, key), values) for key, values in vars(value).items())
        else:
            assert getattr(back, name) == pytest.approx(value, nan_ok=True) if not isinstance(value, str) else getattr(back, name) == value


def test_what_a_method_cannot_see_stays_unknown():
    partial = entry(row_noise=None, row_noise_error=None, tail=None, tail_error=None, black_error=None, black_error_error=None)
    assert from_entry(partial).row_noise is None
    values, _ = noise_from_calibrations("Acme One", 1600, [camera(partial)], "good")
    assert values == pytest.approx({"gain_dn": 1e-4 * RANGE, "read_noise_dn": 4e-4 * RANGE})


def test_more_trusted_methods_first_and_verdicts_apart():
    calibrations = [camera(entry(method="image", gain=3e-4), entry(method="pairs", gain=2e-4), entry(method="flats", verdict="poor"))]
    values, told = noise_from_calibrations("ACME one", 1600, calibrations, "good")
    assert values["gain_dn"] == pytest.approx(2e-4 * RANGE)
    assert "from pairs" in told
    values, told = noise_from_calibrations("Acme One", 1600, calibrations, "poor")
    assert values["gain_dn"] == pytest.approx(1e-4 * RANGE)
    assert "from flats" in told


def test_between_neighbours_a_power_law_is_met_and_nothing_is_extrapolated():
    def at(iso):
        return entry(iso=float(iso), gain=1e-6 * iso, read_noise=1e-5 * iso**0.5)

    calibrations = [camera(at(100), at(200), at(800))]
    values, told = noise_from_calibrations("Acme One", 150, calibrations, "good")
    assert values["gain_dn"] == pytest.approx(1.5e-4 * RANGE)
    assert values["read_noise_dn"] == pytest.approx(1e-5 * 150**0.5 * RANGE)
    assert values["tail"] == pytest.approx(-0.04)
    assert "between ISO 100 and 200" in told
    for iso in (50, 400, 1600):
        values, told = noise_from_calibrations("Acme One", iso, calibrations, "good")
        assert values is None
        assert told == f"good calibrations of Acme One: only at ISO 100, 200, 800, not at {iso}"


def test_another_camera_is_another_camera():
    assert noise_from_calibrations("Acme One II", 1600, [camera(entry())], "good") == (None, "good calibrations of Acme One II: none")


def own(verdict="good"):
    return {"tag": lambda: None, "image": lambda: replace(ESTIMATE, gain=9e-4, verdict=verdict)}


FLATS = "calibration of Acme One from flats, ISO 1600"


@pytest.mark.parametrize(
    ("changes", "gain", "source"),
    [
        ({}, 7e-4, GIVEN),
        ({"given": None}, 1e-4, f"{FLATS} (good"),
        ({"given": None, "calibrations": [camera(entry(verdict="poor"))]}, 1.6 / RANGE, "table Acme One at ISO 1600"),
        ({"given": None, "calibrations": [camera(entry(verdict="poor"))], "table": {}}, 1e-4, f"{FLATS} (poor"),
        ({"given": None, "calibrations": [camera(entry(verdict="unusable"))], "table": {}}, 9e-4, "image (good"),
    ],
)  # fmt: skip
def test_the_most_trusted_source_wins(changes, gain, source):
    everything = {"given": {"gain": 7e-4, "read_noise": 1e-3}, "calibrations": [camera(entry())], "table": TABLE, "own": own()}
    values, told, passed_over = choose_noise("Acme One", 1600, RANGE, Sources(**(everything | changes)))
    assert values["gain"] == pytest.approx(gain)
    assert told.startswith(source)
    assert len(passed_over) == {GIVEN: 0, f"{FLATS} (good": 0, "image (good": 3}.get(source, len(passed_over))


def test_a_source_knows_the_variance_as_well_as_it_measured_it_and_a_frame_by_itself_does_not():
    error = {
        GIVEN: 0.02, f"{FLATS} (good: 5 levels)": 0.02, f"{FLATS.replace('flats', 'pairs')} (good: many)": 0.1,
        "table Acme One at ISO 1600": 0.1, f"{FLATS} (poor: few)": None, f"{FLATS.replace('flats', 'image')} (good: many)": None,
        "image (good: smooth)": None, "tag (poor: nobody knows)": None, ASSUMED: None,
    }  # fmt: skip
    assert {source: variance_error(source) for source in error} == error


def test_the_image_is_not_measured_where_something_better_is_known():
    def must_not():
        raise AssertionError("measured")

    choose_noise("Acme One", 1600, RANGE, Sources(calibrations=[camera(entry())], own={"image": must_not}))


def test_nothing_known_says_every_reason_and_what_to_do():
    with pytest.raises(
        ValueError, match=r"Other at ISO 1600 \(good calibrations of Other: none; no noise table.*; image: too dark.*flats, darks or pairs"
    ):
        choose_noise("Other", 1600, RANGE, Sources(
            table=TABLE, own={"image": lambda: replace(ESTIMATE, verdict="unusable", reason="too dark")},
        ))  # fmt: skip
