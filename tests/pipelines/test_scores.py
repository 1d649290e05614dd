"""Published protocols from the pipeline, on miniatures in the folders of the data sets."""

import numpy as np
import pandas as pd
import pytest
import rawpy
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from tests.conftest import make_frame

REPORTING = "08_reporting"


def read(project, name):
    return pd.read_csv(project.data / REPORTING / f"{name}.csv")


def published(path):
    """Packed raw by the code of ELD: RGBG planes over (16383 - black), clipped."""
    with rawpy.imread(str(path)) as raw:
        dn, black = raw.raw_image_visible.astype(np.float64), raw.black_level_per_channel[0]
        planes = [dn[row::2, column::2] for row, column in ((0, 0), (0, 1), (1, 1), (1, 0))]
    return (np.stack(planes, -1) - black) / (16383 - black)


def figures(image, truth):
    image, truth = image * 255, truth * 255
    return peak_signal_noise_ratio(truth, image, data_range=255), structural_similarity(truth, image, data_range=255, channel_axis=-1)


def test_the_input_scores_as_the_published_code_would_score_it(project, caplog):
    """And what a frame cannot be scored by is told, the rest computed."""
    protocols = ["linear_rgb", "sid_raw", "sid_raw_512", "sid_srgb"]
    evaluation = {"protocols": protocols, "metrics": ["psnr", "ssim", "ms_ssim"]}
    project.run("inference", "evaluation", inference={"select": {"splits": ["val"]}}, evaluation=evaluation)
    scores = read(project, "scores")
    assert caplog.text.count("not measured: ms_ssim needs") == 1  # once, for both images in both spaces
    assert read(project, "evaluation")["restored_ms_ssim_srgb"].isna().all()
    assert set(scores["protocol"]) == {"linear_rgb", "sid_raw", "sid_srgb"}
    assert "not scored by sid_raw_512: the centre 512 x 512 does not fit into 64 x 80" in caplog.text
    assert "one scene only: means have no interval" in caplog.text
    raw = scores.query("protocol == 'sid_raw' and method == 'scaled'").set_index(["scaling", "metric"])["value"]
    short, long = (published(project.raw / f"Sony/{kind}/20001_00_{time}s.dng") for kind, time in (("short", "0.1"), ("long", "10")))
    p, g = np.clip(np.clip(short, 0, 1) * 100, 0, 1), np.clip(long, 0, 1)
    psnr, ssim = figures(p, g)
    assert raw["plain", "psnr"] == pytest.approx(psnr, abs=1e-4)  # the file is float32
    assert raw["plain", "ssim"] == pytest.approx(ssim, abs=1e-6)
    where = g != 1
    aligned = np.clip(p * (p * g)[where].sum() / np.square(p[where]).sum(), 0, 1)
    assert raw["aligned", "psnr"] == pytest.approx(figures(aligned, g)[0], abs=1e-4)
    restored = scores.query("protocol == 'sid_raw' and method == 'restored' and metric == 'psnr'").set_index("scaling")["value"]
    assert restored["plain"] > raw["plain", "psnr"]
    summary = read(project, "score_summary").query("stratum == 'all'")
    assert summary["low"].isna().all()
    assert set(read(project, "score_differences")["against"]) == {"scaled"}
    remains = read(project, "residuals")
    assert set(remains["channel"]) == {"R", "G", "B"}
    assert remains["mean_square"].between(0.01, 10).all()
    told = read(project, "uncertainty").set_index("kind")
    assert told.loc["place", "value"].sum() == pytest.approx(1)
    held = read(project, "evaluation").iloc[0]
    assert told.loc["coverage", "value"].tolist() == pytest.approx(held[["coverage_50", "coverage_90", "coverage_95"]].tolist())
    page = (project.data / REPORTING / "report.html").read_text(encoding="utf-8")
    assert all(f"<h3>{heading}" in page for heading in ("sid_raw: full frame, aligned", "sid_srgb", "Sony/short/20001_00_0.1s"))
    assert "10001_00" not in page  # a frame of the run before
    assert r"\toprule" in (project.data / REPORTING / "report.tex").read_text(encoding="utf-8")


def test_the_folders_of_eld_give_its_table(empty_project, finished):
    """Ten scenes of sixteen images in ELD, two of four here: images 4 and 5 against 1 or 6, by the ratio of exposure times ISO."""
    rng = np.random.default_rng(0)
    for scene in (1, 2):
        folder = empty_project.raw / f"SonyA7S2/scene-{scene}"
        for number in (1, 4, 5, 6):
            seconds = 0.1 if number in (4, 5) else 10.0
            write_dng(folder / f"IMG_{number:04d}.dng", make_frame(rng, BAYER_RGGB, (128, 160), seconds, light=0.6))
    (empty_project.data / "06_models").mkdir(parents=True)
    (empty_project.data / "06_models/prior.safetensors").write_bytes((finished.data / "06_models/prior.safetensors").read_bytes())
    empty_project.run(
        "preprocessing", "inference", "evaluation", preprocessing={"layout": "eld", "pairing": {"check": False}},
        evaluation={"protocols": ["eld_raw"]}, inference={"files": ["linear", "preview"]},
    )  # fmt: skip
    scores = read(empty_project, "scores")
    assert (scores["frame"].nunique(), scores["scene"].nunique(), set(scores["region"])) == (4, 2, {"full frame"})
    summary = read(empty_project, "score_summary").query("stratum == 'all'").set_index(["method", "scaling", "metric"])
    assert read(empty_project, "uncertainty").empty  # the standard deviation was not asked for
    row = summary.loc[("restored", "aligned", "psnr")]
    assert row["low"] <= row["mean"] <= row["high"]


def test_a_protocol_that_does_not_exist_is_told_before_any_frame(project):
    with pytest.raises(Exception, match="unknown protocol 'sid'; choose of: linear_rgb, sid_raw"):
        project.run("evaluation", evaluation={"protocols": ["sid"]})


def test_raws_of_two_scenes_have_an_interval(finished):
    """What the other tests begin with: one Bayer and one X-Trans frame, so linear_rgb has two scenes and sid_raw one."""
    assert (finished.data / REPORTING / "uncertainty.png").stat().st_size > 10_000
    summary = read(finished, "score_summary").query("stratum == 'all' and method == 'restored'").set_index("protocol")
    assert summary.loc["linear_rgb", "low"].notna().all()
    assert summary.loc["sid_raw", "low"].isna().all()
