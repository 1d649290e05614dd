"""What the inference pipeline leaves for each estimate, and for each bad frame."""

import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lowlight_kedro import api, device
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.pipelines.inference import frames
from lowlight_kedro.pipelines.inference.frames import exposure_ratio, saturated_fraction
from lowlight_kedro.pipelines.inference.options import RatioOptions
from lowlight_kedro.restoration.settings import Sampling
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from tests.conftest import make_frame

BAYER = "Sony/short/10001_00_0.1s"
COVERAGE = ["coverage_50", "coverage_90", "coverage_95", "chi2"]
BY_BRIGHTNESS = RatioOptions(value=None, target_exposure_s=None, target_brightness=0.1)


def parts(project, name=BAYER):
    return project.catalog().load("restored")[name]


@pytest.fixture
def small(project):
    """Without its larger test frame."""
    for path in project.raw.rglob("10002_00*"):
        path.unlink()
    return project


def test_a_mean_comes_with_its_standard_deviation_and_how_it_was_made(finished):
    made = parts(finished)
    record, std = made["record"](), made["std"]()
    assert std.shape == made["linear"]().shape
    assert record["std_from"] == "1 probe of the mean"
    assert record["mean_std"] == pytest.approx(std.mean(), abs=1e-5)
    assert record["mean_std"] > 1e-4
    assert record["evaluations"] == 2  # nothing to learn first, one probe
    used = record["options"]  # all that is needed to make it again
    assert used["guidance"] == {"name": "noise_map", "options": {"sigma_start": 2.5, "end": 0.05, "sigma_min": 0.01}}
    assert {"sample", "window", "measurement", "refreshes", "uncertainty", "seed", "exposure_ratio", "crop", "display"} <= used.keys()
    assert len(record["prior"]) >= 8
    assert made["std_preview"]().shape == std.shape


def test_its_page_links_what_was_written_beside_it(finished):
    made, page = parts(finished), finished.data / f"07_model_output/page/{BAYER}.html"
    assert made["page"]() == page.read_text(encoding="utf-8")
    links = {(page.parent / link).resolve() for link in re.findall(r'href="([^"]*)"', made["page"]())}
    assert links == {path for path in (finished.data / "07_model_output").rglob(f"{BAYER}.*") if path.suffix != ".html"}
    assert made["before"]().shape == made["preview"]().shape
    assert np.abs(made["before"]().mean() - made["preview"]().mean()) < 0.1  # at one display exposure
    assert made["before"]().std() > made["preview"]().std()


def test_the_index_leads_to_each_page(finished):
    index = finished.data / "07_model_output/index.html"
    links = {(index.parent / link).resolve() for link in re.findall(r'href="([^"]*)"', index.read_text(encoding="utf-8"))}
    assert links == set((finished.data / "07_model_output/page").rglob("*.html"))


def test_coverage_stands_in_the_evaluation(finished):
    table = pd.read_csv(finished.data / "08_reporting/evaluation.csv")
    summary = json.loads((finished.data / "08_reporting/evaluation.json").read_text())
    assert table[COVERAGE].notna().all(axis=None)
    assert (table["coverage_50"] < table["coverage_95"]).all()
    assert table["coverage_with_noise_of_long"].all()
    assert set(COVERAGE) <= summary["mean"].keys()


def test_mean_of_k_takes_the_spread_of_its_draws(small):
    small.run("inference", "evaluation", inference={"estimate": "mean_of_k", "sample": {"draws": 2}})
    made = parts(small)
    record = made["record"]()
    assert (record["estimate"], record["draws"], record["std_from"]) == ("mean_of_k", 2, "2 draws")
    assert record["evaluations"] <= 2 * 3
    assert record["mean_std"] == pytest.approx(made["std"]().mean(), abs=1e-5)
    assert pd.read_csv(small.data / "08_reporting/evaluation.csv")[COVERAGE].notna().all(axis=None)


def test_the_standard_deviation_of_an_earlier_run_is_not_taken_for_this_one(small):
    small.run("inference", "evaluation", inference={"uncertainty": {"probes": 0}})
    record = parts(small)["record"]()
    assert record["mean_std"] is None
    assert record["std_from"] == "none: inference.uncertainty.probes is 0"
    assert not set(COVERAGE) & set(pd.read_csv(small.data / "08_reporting/evaluation.csv").columns)


def test_other_parameters_replace_an_output_and_the_same_ones_keep_it(small):
    path = small.data / f"07_model_output/linear/{BAYER}.tif"
    before = path.read_bytes()
    small.run("inference", inference={"exposure_ratio": {"value": 50.0}})
    darker, time = path.read_bytes(), path.stat().st_mtime_ns
    assert darker != before
    assert parts(small)["record"]()["exposure_ratio"] == 50
    small.run("inference", inference={"exposure_ratio": {"value": 50.0}, "device": "auto"})  # changes rounding only
    assert path.stat().st_mtime_ns == time
    assert list(small.data.rglob(".*")) == []


def test_the_record_tells_the_precision_that_auto_took_and_the_evaluations_of_all_copies(small, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512_bf16\n")
    monkeypatch.setattr(device, "PROCESSOR", tmp_path / "cpuinfo")
    window = {"size": 256, "precision": "auto"}
    small.run("inference", inference={"exposure_ratio": {"value": 60.0}, "symmetries": 2, "window": window})
    record = parts(small)["record"]()
    assert (record["precision"], record["evaluations"]) == ("bf16", 2 * 2)


def test_bad_frames_are_listed_at_the_end_and_the_others_are_done(small, caplog):
    bright = make_frame(np.random.default_rng(0), shape=(128, 160), exposure_s=0.1)
    write_dng(small.raw / "Sony/short/10008_00_0.1s.dng", replace(bright, mosaic_dn=np.full((128, 160), 16383, np.uint16)))
    small.run("inference", inference={"exposure_ratio": {"value": 100.0}})
    records = {name: made["record"]() for name, made in small.catalog().load("restored").items()}
    assert [name for name, record in records.items() if "error" in record] == ["Sony/short/10008_00_0.1s"]
    assert records[BAYER]["exposure_ratio"] == 100
    pages = small.data / "07_model_output/page/Sony/short"
    assert sorted(page.name for page in pages.iterdir() if not page.name.startswith("10002")) == ["10001_00_0.1s.html"]
    reason = "the frame is over-exposed: 100% of its photosites are at white, expected at most 90%"
    assert reason in (small.data / "07_model_output/index.html").read_text(encoding="utf-8")
    assert reason in records["Sony/short/10008_00_0.1s"]["error"]
    (listed,) = [line.getMessage() for line in caplog.records if "could not be restored" in line.getMessage()]
    assert listed.startswith("1 of 2 frames could not be restored:\n  Sony/short/10008_00_0.1s: " + reason)


def test_the_network_is_built_once_and_does_not_travel(project, monkeypatch):
    built, shared = [], []
    build, restore = api.build_prior, frames.restore_exposure
    monkeypatch.setattr(api, "build_prior", lambda *given: built.append(1) or build(*given))
    monkeypatch.setattr(frames, "restore_exposure", lambda *given: shared.append(1) or restore(*given))
    project.run("inference", inference={"exposure_ratio": {"value": 25.0}})
    assert (len(built), len(shared)) == (1, 2)


def test_a_worker_gets_no_network():
    whole = frames.Restoration(None, None, None, [])
    whole.__dict__["prior"] = lambda: "cannot be pickled"
    assert "prior" not in vars(pickle.loads(pickle.dumps(whole)))


def test_a_prior_of_other_mosaics_is_told():
    trained = {"corruption": {"name": "noise_map", "options": {"mosaics": ["bayer"]}}}
    assert frames.unfamiliar_mosaic(trained, BAYER_RGGB) is None
    assert "trained on mosaics bayer, this frame is xtrans" in frames.unfamiliar_mosaic(trained, XTRANS)
    assert frames.unfamiliar_mosaic({"corruption": {"name": "uniform", "options": {}}}, XTRANS) is None


def test_without_a_ratio_to_be_had_the_parameter_is_named(rng):
    frame = replace(make_frame(rng), exposure_s=float("nan"))
    with pytest.raises(ValueError, match=r"does not tell its exposure time; give inference\.exposure_ratio\.value"):
        exposure_ratio(frame, np.ones((4, 4)), None, RatioOptions(value=None, target_exposure_s=10, target_brightness=0.1))
    with pytest.raises(ValueError, match=r"no light above black; give inference\.exposure_ratio\.value"):
        exposure_ratio(frame, np.zeros((4, 4)), None, BY_BRIGHTNESS)
    assert exposure_ratio(frame, np.full((4, 4), 0.001), None, BY_BRIGHTNESS) == (pytest.approx(100), "mean brightness to 0.1")
    assert exposure_ratio(frame, np.full((4, 4), 0.5), None, BY_BRIGHTNESS)[0] == 1  # never darker than it is


def test_levels_of_a_draw_must_fall():
    with pytest.raises(ValueError, match=r"sigma_min must be below sigma_max, got 3\.0 and 0\.5"):
        Sampling(sampler="heun", evaluations=5, sigma_min=3.0, sigma_max=0.5)


def test_a_saturated_fraction_counts_what_is_at_white():
    signal = np.array([0.5, 1.0, 1.2, 0.99])
    assert saturated_fraction(signal, 0.5) == 0.5
    with pytest.raises(ValueError, match=r"over-exposed: 50% .* at most 40%; .*inference\.max_saturated"):
        saturated_fraction(signal, 0.4)
