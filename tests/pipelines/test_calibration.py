"""`kedro run --pipelines calibration`, and what inference makes of it."""

import json

import numpy as np
import pandas as pd
import pytest

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from lowlight_kedro.sensor.noise import CameraNoise
from lowlight_kedro.sensor.simulate import Camera, expose, recording

CAMERA = Camera("Acme One", 256, 4095, (0.5, 1.0, 0.6))
RANGE = 4095 - 256
GAIN_DN, READ_DN, ROW_DN, ISO = 0.8, 2.5, 0.6, 800
NOISE = CameraNoise(GAIN_DN / RANGE, READ_DN / RANGE, None, ROW_DN / RANGE, **recording(CAMERA))


def shoot(path, light: float, seconds: float, seed: int) -> None:
    field = np.full((3, 192, 192), light, np.float32) * np.array([0.5, 1, 0.6], np.float32)[:, None, None]
    rng = np.random.default_rng(seed)
    frame = expose(
        field, BAYER_RGGB, exposure_s=seconds, full_exposure_s=10, iso=ISO, noise=NOISE, camera=CAMERA, rng=rng
    )  # fmt: skip
    write_dng(path, frame)


@pytest.fixture
def calibrated(project):
    """The finished project, and an unknown camera with flats, darks and one short exposure of a test scene."""
    for level, seconds in enumerate((0.5, 2, 5, 9)):
        for number in range(2):
            shoot(project.raw / f"acme/flats/{seconds}_{number}.dng", 1.0, seconds, 10 * level + number)
    for number in range(4):
        shoot(project.raw / f"acme/darks/{number}.dng", 0.0, 0.1, 100 + number)
    shoot(project.raw / "acme/short/10009_00_0.1s.dng", 0.5, 0.1, 200)
    project.run("calibration", calibration={"methods": ["flats"]})
    return project


def test_flats_and_darks_give_the_camera_back_and_inference_uses_it(calibrated):
    record = json.loads((calibrated.data / "03_primary/calibrations/Acme_One.json").read_text())
    (entry,) = record["entries"]
    assert (record["camera"], entry["iso"], entry["method"], entry["verdict"]) == ("Acme One", ISO, "flats", "good")
    for name, truth in {"gain_dn": GAIN_DN, "read_noise_dn": np.hypot(READ_DN, 12**-0.5), "row_noise_dn": ROW_DN}.items():
        assert abs(entry[name] - truth) < 4 * entry[f"{name}_error"]
        assert entry[f"{name}_error"] < 0.06 * truth
    for value, error in zip(entry["channel_gain_dn"], entry["channel_gain_dn_error"], strict=True):
        assert abs(value - GAIN_DN) < 4 * error < 0.2 * GAIN_DN
    calibrated.run("inference", inference={"exposure_ratio": {"value": 100.0}})
    used = calibrated.catalog().load("restored")["acme/short/10009_00_0.1s"]["record"]()
    assert used["noise_from"].startswith("calibration of Acme One from flats, ISO 800 (good: ")
    assert used["noise"]["gain"] == pytest.approx(entry["gain_dn"] / RANGE)
    assert used["noise_not_from"] == []
    assert used["darks"] == {
        "frames": [f"{number}.dng" for number in range(4)],
        "exposure_s": 0.1,
        "times_s": [],
        "sites": used["darks"]["sites"],
    }
    with np.load(calibrated.data / "03_primary/calibrations/Acme_One_iso800_0.1s_192x192.npz") as dark_map:
        assert (dark_map["camera"], dark_map["count"], dark_map["shape"].tolist()) == ("Acme One", 4, [192, 192])
        assert np.abs(dark_map["black"]).max() < 1


def test_flats_and_darks_are_no_scenes(calibrated):
    calibrated.run("preprocessing")
    frames = pd.read_csv(calibrated.data / "02_intermediate/frames.csv")
    assert frames["data_type"].value_counts().to_dict() == {"flat": 8, "long": 6, "short": 7, "dark": 4}
    assert not pd.read_csv(calibrated.data / "03_primary/index.csv")["frame"].str.contains("acme/(?:flats|darks)").any()
    assert not pd.read_csv(calibrated.data / "03_primary/pairs.csv")["short"].str.contains("flats|darks").any()


def test_the_truth_of_test_scenes_is_not_used(project):
    project.run("calibration", calibration={"methods": ["pairs"]})
    measured = {path.stem for path in (project.data / "02_intermediate/noise_measurements").glob("*.json")}
    scenes = {scene for scene in ("00001", "00002", "00003", "10001", "10002", "20001") if any(scene in name for name in measured)}
    assert scenes == {"00001", "00002", "00003", "20001"}


def test_nothing_to_measure_is_said_and_does_not_stop_the_run(project, caplog):
    (project.raw / "Sony/long/torn.dng").write_bytes(b"no raw")
    project.run("calibration", calibration={"methods": ["flats", "tag"]})
    assert pd.read_csv(project.data / "08_reporting/calibration.csv").empty
    assert "no noise could be measured" in caplog.text
    report = json.loads((project.data / "08_reporting/calibration_report.json").read_text())
    assert [(problem["file"][-8:], bool(problem["reason"])) for problem in report["skipped"]] == [("torn.dng", True)]
