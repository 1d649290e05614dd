"""The report of an evaluation: whole, honest about intervals, alone in one file."""

import re

import numpy as np
import pandas as pd
import pytest

from lowlight_kedro.evaluation.pictures import DRAWN, bars, comparison
from lowlight_kedro.evaluation.report import Report, frame_pictures, latex_tables, report_page, score_tables
from lowlight_kedro.evaluation.statistics import differences, summarised
from lowlight_kedro.pipelines.evaluation.nodes import MOST_SHOWN, shown_frames
from tests.evaluation.test_page_browser import browser  # noqa: F401  a fixture

EMPTY = pd.DataFrame(columns=["frame", "kind", "at", "value"])


def scores(scenes=3, ratios=(100.0, 300.0)):
    rows = [
        {
            "protocol": "sid_raw", "region": "full frame", "scaling": scaling, "metric": metric, "method": method,
            "frame": f"f{scene}{ratio}", "scene": f"s{scene}", "value": 30 + scene + gain if metric == "psnr" else 0.9,
            "ratio": ratio, "iso": 1600.0, "light": "dark",
        }
        for scene in range(scenes) for ratio in ratios for scaling in ("plain", "aligned") for metric in ("psnr", "ssim")
        for method, gain in (("scaled", 0.0), ("restored <b>", 5.0))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def report(frames=(), **changes):
    table = scores(**changes)
    return Report(
        title="A <report>", command="kedro run --params a='<b>'", made="2026-11-27", summary=summarised(table),
        differences=differences(table, "scaled"), residuals=pd.DataFrame(), uncertainty=EMPTY, frames=list(frames),
        noise=pd.DataFrame([{"camera": "A & B", "gain": "1e-4"}]), versions={"lowlight_kedro": "0.1"}, parameters="evaluation: {}",
    )  # fmt: skip


@pytest.fixture
def frame(rng):
    light, noise = np.full((3, 200, 300), 0.4, np.float32), rng.normal(0, 0.1, (3, 200, 300)).astype(np.float32)
    light[:, 50:90, 60:100] = 0.8
    shown = {"scaled": np.clip(light + noise, 0, 1), "restored": light * np.float32(0.9), "long": light}
    return frame_pictures("Sony/<short>/1", shown, {"scaled": "PSNR 20 & more"}, np.abs(noise))


def test_the_page_needs_nothing_but_itself(frame):
    page = report_page(report([frame]))
    addresses = re.findall(r'(?:src|href|data-pictures|data-crops)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    assert "http" not in re.sub(r"data:image/[^\"]*", "", page)
    assert "<b>" not in page
    assert "A &lt;report&gt;" in page
    assert "Sony/&lt;short&gt;/1" in page


def test_every_number_stands_with_protocol_scaling_frames_and_interval():
    tables = dict(score_tables(summarised(scores())))
    assert list(tables) == ["sid_raw: full frame, plain", "sid_raw: full frame, aligned"]
    first = tables["sid_raw: full frame, plain"].iloc[0]
    assert (first["frames"], first["method"], first["n"]) == ("all", "scaled", "6 (3 scenes)")
    assert re.fullmatch(r"31\.00 \[30\.\d\d, 3[12]\.\d\d\]", first["psnr"])
    assert tables["sid_raw: full frame, plain"]["frames"].unique().tolist() == ["all", "ratio 100", "ratio 300"]


def test_one_scene_has_no_interval_and_is_told():
    page = report_page(report(scenes=1))
    assert "One scene only, so no number has an interval." in page
    assert "[" not in dict(score_tables(summarised(scores(scenes=1))))["sid_raw: full frame, plain"]["psnr"].iloc[0]


def test_the_tables_for_latex_are_whole():
    text = latex_tables(summarised(scores()))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.count("&") == 4
    assert r"sid\_raw: full frame, aligned; mean and 95\,\% bootstrap" in text


def test_the_slider_and_the_choice_of_pictures_work_and_the_page_fits_a_telephone(browser, frame, tmp_path):  # noqa: F811
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    (tmp_path / "report.html").write_text(report_page(report([frame])), encoding="utf-8")
    browser.set_window_size(500, 900)
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.execute_script("const r = document.querySelector('.frame input'); r.value = 80; r.dispatchEvent(new Event('input'))")
    left = browser.find_element(By.CSS_SELECTOR, ".pictures .left")
    assert "20%" in browser.execute_script("return getComputedStyle(arguments[0]).clipPath", left)
    Select(browser.find_element(By.CSS_SELECTOR, ".at-left")).select_by_visible_text("error of restored")
    assert left.get_attribute("src") == frame["pictures"]["error of restored"]
    assert browser.find_element(By.CSS_SELECTOR, ".crops .left").get_attribute("src") == frame["crops"]["error of restored"]
    assert browser.execute_script("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_of_many_frames_the_worst_are_shown_and_some_of_the_others():
    few = pd.DataFrame({"frame": ["b", "a", "old"], "metric": "psnr", "value": [1.0, 2.0, 3.0]})
    assert shown_frames(few, {"a", "b"}) == ["a", "b"]
    names = [f"f{number:04d}" for number in range(1000)]
    scores = pd.DataFrame(
        {"frame": names, "metric": ["psnr", "psnr_srgb"] * 500, "value": [float(number * 7919 % 1000) for number in range(1000)]}
    )
    shown = shown_frames(scores, names)
    values = scores.set_index("frame")["value"][shown]
    assert len(set(shown)) == MOST_SHOWN
    assert sorted(values)[: MOST_SHOWN // 2] == list(range(MOST_SHOWN // 2))
    assert values.max() > 900


def test_figures_of_a_thousand_frames_make_one_picture():
    before = {f"f{number}": 20.0 + number % 7 for number in range(1000)}
    figure = bars(before, {name: value + 5 for name, value in before.items()}, ("before", "after"), "dB")
    assert max(figure.get_size_inches()) <= 10
    (points,) = figure.axes[0].collections
    assert points.get_offsets().shape == (1000, 2)
    assert (points.get_offsets()[:, 1] > points.get_offsets()[:, 0]).all()


def test_a_figure_holds_no_whole_frame_and_marks_the_crop_in_its_place():
    """Figures of some sixty frames wait for each other in Kedro, which whole ones of 24 megapixels would not fit into memory."""
    light = np.full((3, 1200, 1800), 0.5, np.float32)
    light[:, 640:720, 1280:1360] = np.random.default_rng(0).uniform(size=(3, 80, 80))
    figure = comparison({"restored": light, "long": light}, {}, side=160)
    for axis in figure.axes:
        (drawn,) = axis.images
        assert max(drawn.get_array().shape) <= DRAWN
        assert not np.shares_memory(drawn.get_array(), light)
    (mark,), (whole,) = figure.axes[0].patches, figure.axes[0].images
    assert (mark.get_y(), mark.get_x()) == (640, 1280)
    assert whole.get_extent() == [-0.5, 1799.5, 1199.5, -0.5]
