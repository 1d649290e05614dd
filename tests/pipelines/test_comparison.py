"""The same frames by several methods."""

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from pydantic import ValidationError

from lowlight_kedro.pipelines.comparison.nodes import ComparisonOptions, _tell_losses, collect_methods, develop_baseline, evaluate_methods
from lowlight_kedro.pipelines.inference.frames import Restoration
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import SensorOptions
from lowlight_kedro.sensor.cfa import XTRANS
from lowlight_kedro.sensor.frame import crop
from tests.conftest import ROOT, make_frame

METHODS = {
    "noise_map": {"guidance": "noise_map", "estimate": "mean"},
    "dps": {"guidance": "dps", "estimate": "sample", "evaluations": 3},
    "diffpir": {"guidance": "diffpir", "estimate": "sample", "evaluations": 3},
    "dps_norm": {"guidance": "dps_norm", "estimate": "sample", "evaluations": 2},
}
BASELINES = {"dht": {"baseline": "libraw:DHT"}, "nlm": {"baseline": "nlm"}, "nlm_lmmse": {"baseline": "nlm+lmmse"}}
SMALL = {"select": {"splits": ["val"]}}


def test_every_method_is_measured_as_evaluation_measures_it(project):
    project.run("inference", "evaluation", "comparison", inference=SMALL, comparison={"methods": METHODS | BASELINES})
    table = pd.read_csv(project.data / "08_reporting/methods.csv").set_index("method")
    alone = pd.read_csv(project.data / "08_reporting/evaluation.csv").iloc[0]
    assert list(table.index) == ["scaled", *METHODS, *BASELINES]
    assert table.loc["scaled", "psnr_srgb"] == pytest.approx(alone["scaled_psnr_srgb"])
    assert table.loc["nlm", "psnr_linear"] > table.loc["scaled", "psnr_linear"] + 1
    # evaluation reads 16 bits, clipped to what a picture holds
    assert table.loc["noise_map", "psnr_srgb"] == pytest.approx(alone["restored_psnr_srgb"], abs=1e-3)
    assert table["psnr_linear"].nunique() == 8
    assert not [column for column in table if column.startswith("norm_")]  # dps does not take what belongs to dps_norm
    assert list(table["evaluations"]) == [0, 1, 3, 3, 2, 0, 0, 0]
    assert list(table["estimate"].fillna("")) == ["", "mean", "sample", "sample", "sample", "", "", ""]
    assert (project.data / f"08_reporting/methods/{alone['frame']}.png").stat().st_size > 10_000
    scores = pd.read_csv(project.data / "08_reporting/method_scores.csv")
    assert set(scores["protocol"]) == {"linear_rgb", "sid_raw"}
    both = scores.query("protocol == 'linear_rgb' and metric == 'psnr_srgb'").set_index("method")["value"]
    assert both["noise_map"] == pytest.approx(table.loc["noise_map", "psnr_srgb"])
    between = pd.read_csv(project.data / "08_reporting/method_differences.csv").query("protocol == 'linear_rgb' and metric == 'psnr_srgb'")
    of_dps = between.set_index(["method", "against"])["difference"]
    assert of_dps["dps", "noise_map"] == pytest.approx(table.loc["dps", "psnr_srgb"] - table.loc["noise_map", "psnr_srgb"])
    assert ("scaled", "noise_map") not in of_dps
    assert set(pd.read_csv(project.data / "08_reporting/method_residuals.csv")["method"]) == set(METHODS | BASELINES)
    assert "Methods side by side: scaled, noise_map" in (project.data / "08_reporting/methods.html").read_text(encoding="utf-8")


def test_a_method_that_is_worse_than_doing_nothing_is_told(caplog):
    table = pd.DataFrame({"method": ["scaled", "pigdm", "dps"], "psnr_srgb": [19.0, 12.1, 22.0], "evaluations": [0, 9, 9]})
    _tell_losses(table)
    assert [record.getMessage() for record in caplog.records] == [
        "pigdm (12.1 dB) is worse than the input, only scaled (19.0 dB): it took 9 evaluations of the network; give it more by "
        "comparison.methods.pigdm.evaluations, or read docs/guidance.md"
    ]


def test_what_cannot_be_compared_is_said_before_any_frame(project):
    methods = METHODS | {"dps": {"guidance": "dps", "estimate": "mean"}}
    with pytest.raises(ValueError, match="estimate 'mean': guidance 'dps' does not know the posterior mean"):
        project.run("comparison", comparison={"methods": methods})
    with pytest.raises(Exception, match="unknown guidance 'magic'"):
        project.run("comparison", comparison={"methods": {"dps": {"guidance": "magic"}}})
    assert not list((project.data / "07_model_output/methods").rglob("*.tif"))


def test_a_method_that_restores_nothing_is_left_out_and_told(caplog):
    """It does not end the comparison of the others, as where the package of a baseline is missing."""
    options = ComparisonOptions(methods={"mine": METHODS["dps"]})
    pairs = pd.DataFrame([{"short": "a", "long": "b", "exposure_ratio": 10.0}])
    failed = {"mine/a": {"record": lambda: {"error": "torn"}}}
    with pytest.raises(ValueError, match="no frame could be compared"):
        list(evaluate_methods({}, pd.DataFrame({"frame": ["a"]}), pairs, failed, None, None, options))
    assert "method left out: mine restored no frame: torn" in caplog.text


def test_a_frame_that_a_method_could_not_restore_is_left_out_and_told(caplog):
    """Means over frames are of the same frames."""
    options = ComparisonOptions(methods={"mine": METHODS["dps"]})
    pairs = pd.DataFrame([{"short": name, "long": "b", "exposure_ratio": 10.0} for name in "ac"])
    records = {"mine/a": {"record": lambda: {"error": "torn"}}, "mine/c": {"record": dict, "linear": lambda: None}}
    compared = evaluate_methods({}, pd.DataFrame({"frame": ["a", "c"]}), pairs, records, None, None, options)
    left_out = next(compared)[0]
    assert left_out == {"a": {"frame": "a", "error": "mine: torn"}}
    with pytest.raises(KeyError):  # goes on to the second frame, which has no raw here
        next(compared)
    with pytest.raises(ValueError, match="no frame could be compared"):
        collect_methods({"a": lambda: left_out["a"]}, pd.DataFrame({"frame": ["a"]}), pairs)
    assert "not compared: a: mine: torn" in caplog.text


@pytest.mark.parametrize("name", ["scaled", "long", "a/b", ""])
def test_names_that_would_be_taken_for_something_else_are_refused(name):
    with pytest.raises(ValidationError, match="methods"):
        ComparisonOptions(methods={name: METHODS["dps"]})


def test_null_takes_a_method_out_and_one_must_be_left():
    assert list(ComparisonOptions(methods={"dps": None, "mine": METHODS["dps"]}).methods) == ["mine"]
    with pytest.raises(ValidationError, match="at least 1 item"):
        ComparisonOptions(methods={"dps": None})


@pytest.mark.parametrize(("method", "message"), [
    ({"baseline": "bm4d"}, "unknown baseline 'bm4d': none of nlm, bm3d, ffdnet, rawtherapee, rawtherapee:plain, demosaicnet, and"),
    ({"baseline": "lmmse+nlm"}, "unknown denoiser 'lmmse'"),
    ({"baseline": "nlm", "guidance": "dps"}, "a baseline or a guidance"),
    ({"guidance": "dps"}, "needs guidance and estimate, or baseline"),
])  # fmt: skip
def test_a_method_is_one_thing_that_exists(method, message):
    with pytest.raises(ValidationError, match=message):
        ComparisonOptions(methods={"it": method})


def test_a_mosaic_of_odd_sides_is_denoised_whole(finished):
    """As its even part is, away from the odd end; X-Trans is refused by name."""
    with KedroSession.create(ROOT, env="test", conf_source=str(finished.conf)) as session:
        parameters = session.load_context().params
    options = {"sensor": SensorOptions, "inference": InferenceOptions}
    sensor, inference = (kind.model_validate(parameters[name]) for name, kind in options.items())
    shared = Restoration(None, sensor, inference.model_copy(update={"crop": None}), [])
    frame = make_frame(np.random.default_rng(0), shape=(65, 71), exposure_s=0.1, light=0.6)
    light, record = develop_baseline("nlm", lambda: frame, 100.0, shared)
    even, _ = develop_baseline("nlm", lambda: crop(frame, 0, 0, 64, 70), 100.0, shared)
    assert light.shape == (3, 65, 71)
    np.testing.assert_allclose(light[:, :40, :40], even[:, :40, :40], atol=0.05)
    assert (record["baseline"], record["exposure_ratio"]) == ("nlm", 100.0)
    with pytest.raises(ValueError, match="baseline nlm denoises Bayer mosaics only"):
        develop_baseline("nlm", lambda: make_frame(np.random.default_rng(0), XTRANS, (66, 72), 0.1), 100.0, shared)
