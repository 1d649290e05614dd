"""The same frames by several methods."""

import pandas as pd
import pytest
from pydantic import ValidationError

from lowlight_kedro.pipelines.comparison.nodes import ComparisonOptions, evaluate_methods

METHODS = {
    "noise_map": {"guidance": "noise_map", "estimate": "mean"},
    "dps": {"guidance": "dps", "estimate": "sample", "evaluations": 3},
    "diffpir": {"guidance": "diffpir", "estimate": "sample", "evaluations": 3},
    "dps_norm": {"guidance": "dps_norm", "estimate": "sample", "evaluations": 2},
}
SMALL = {"select": {"splits": ["val"]}}


def test_every_method_is_measured_as_evaluation_measures_it(project):
    project.run("inference", "evaluation", inference=SMALL)
    project.run("comparison", inference=SMALL, comparison={"methods": METHODS})
    table = pd.read_csv(project.data / "08_reporting/methods.csv").set_index("method")
    alone = pd.read_csv(project.data / "08_reporting/evaluation.csv").iloc[0]
    assert list(table.index) == ["scaled", *METHODS]
    assert table.loc["scaled", "psnr_srgb"] == pytest.approx(alone["scaled_psnr_srgb"])
    # evaluation reads 16 bits, clipped to what a picture holds
    assert table.loc["noise_map", "psnr_srgb"] == pytest.approx(alone["restored_psnr_srgb"], abs=1e-3)
    assert table["psnr_linear"].nunique() == 5
    assert not [column for column in table if column.startswith("norm_")]  # dps does not take what belongs to dps_norm
    assert list(table["evaluations"]) == [0, 2, 3, 3, 2]
    assert (project.data / f"08_reporting/methods/{alone['frame']}.png").stat().st_size > 10_000
    scores = pd.read_csv(project.data / "08_reporting/method_scores.csv")
    assert set(scores["protocol"]) == {"linear_rgb", "sid_raw"}
    both = scores.query("protocol == 'linear_rgb' and metric == 'psnr_srgb'").set_index("method")["value"]
    assert both["noise_map"] == pytest.approx(table.loc["noise_map", "psnr_srgb"])
    assert set(pd.read_csv(project.data / "08_reporting/method_residuals.csv")["method"]) == set(METHODS)
    assert "Methods side by side: scaled, noise_map" in (project.data / "08_reporting/methods.html").read_text(encoding="utf-8")


def test_what_cannot_be_compared_is_said_before_any_frame(project):
    methods = METHODS | {"dps": {"guidance": "dps", "estimate": "mean"}}
    with pytest.raises(ValueError, match="estimate 'mean': guidance 'dps' does not know the posterior mean"):
        project.run("comparison", comparison={"methods": methods})
    with pytest.raises(Exception, match="unknown guidance 'magic'"):
        project.run("comparison", comparison={"methods": {"dps": {"guidance": "magic"}}})
    assert not list((project.data / "07_model_output/methods").rglob("*.tif"))


def test_a_frame_that_a_method_could_not_restore_is_left_out_and_told(caplog):
    """It does not end the comparison of the others."""
    options = ComparisonOptions(methods={"mine": METHODS["dps"]})
    pairs = pd.DataFrame([{"short": "a", "long": "b", "exposure_ratio": 10.0}])
    failed = {"mine/a": {"record": lambda: {"error": "torn"}}}
    with pytest.raises(ValueError, match="no frame could be compared"):
        evaluate_methods({}, pd.DataFrame({"frame": ["a"]}), pairs, failed, None, None, options)
    assert "not compared: a: mine: torn" in caplog.text


@pytest.mark.parametrize("name", ["scaled", "long", "a/b", ""])
def test_names_that_would_be_taken_for_something_else_are_refused(name):
    with pytest.raises(ValidationError, match="methods"):
        ComparisonOptions(methods={name: METHODS["dps"]})
