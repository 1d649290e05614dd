"""Pairs are believed only when their pixels agree."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.raw import RawFile
from lowlight_kedro.pipelines.evaluation.nodes import EvaluationOptions, evaluate_frame
from lowlight_kedro.pipelines.evaluation.scores import Pair
from lowlight_kedro.pipelines.preprocessing.nodes import CHECK_COLUMNS, check_files
from lowlight_kedro.pipelines.preprocessing.options import PairingOptions, PreprocessingOptions
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from lowlight_kedro.sensor.frame import with_white
from tests.conftest import ROOT, make_frame
from tests.pipelines.conftest import write_raws

OPTIONS = PairingOptions(check=True, max_ratio_error=0.12, max_shift=32, max_moving=0.3, exclude={})
SCENES = dict.fromkeys(("00001", "00002", "20001"), BAYER_RGGB)


def tables(project):
    unpaired = project.data / "02_intermediate/unpaired_frames.json"
    return pd.read_csv(project.data / "03_primary/pairs.csv"), json.loads(unpaired.read_text())


@pytest.fixture
def spoiled(empty_project):
    """Three scenes; of the second the short exposure is another scene, of the third it is 30 % too bright."""
    write_raws(empty_project.raw, SCENES)
    other = make_frame(np.random.default_rng(99), shape=(128, 160), exposure_s=0.1, light=0.6)
    write_dng(empty_project.raw / "Sony/short/00002_00_0.1s.dng", other)
    bright = make_frame(np.random.default_rng(2), shape=(128, 160), exposure_s=0.13, light=0.6)
    write_dng(empty_project.raw / "Sony/short/20001_00_0.1s.dng", replace(bright, exposure_s=0.1))
    return empty_project


def test_a_pair_that_fails_is_listed_and_not_used(spoiled):
    spoiled.run("preprocessing")
    pairs, unpaired = tables(spoiled)
    assert pairs["scene"].tolist() == ["Sony_00001"]
    assert set(CHECK_COLUMNS) <= set(pairs.columns)
    assert pairs["exposure_ratio"][0] == pytest.approx(100)
    assert pairs["measured_ratio"][0] == pytest.approx(100, abs=5 * pairs["ratio_error"][0])
    reasons = {problem["file"].split("/")[-1]: problem["reason"] for problem in unpaired}
    assert set(reasons) == {"00002_00_0.1s.dng", "20001_00_0.1s.dng"}
    assert "wrong exposure time?" in reasons["20001_00_0.1s.dng"]
    assert reasons["20001_00_0.1s.dng"].startswith("with Sony/long/20001_00_10s: signal ratio 7")


def test_unchecked_pairs_are_all_used(spoiled):
    spoiled.run("preprocessing", preprocessing={"pairing": {"check": False, "exclude": {"Sony_00002": "by hand"}}})
    pairs, unpaired = tables(spoiled)
    assert pairs["scene"].tolist() == ["Sony_00001", "Sony_20001"]
    assert not set(CHECK_COLUMNS) & set(pairs.columns)
    assert [problem["reason"] for problem in unpaired] == ["scene Sony_00002 is excluded: by hand"]


def test_published_lists_among_the_raws_are_used(empty_project):
    write_raws(empty_project.raw, SCENES)
    lines = [f"./Sony/short/{scene}_00_0.1s.ARW ./Sony/long/{scene}_00_10s.ARW ISO1600 F8" for scene in SCENES]
    (empty_project.raw / "Sony_test_list.txt").write_text(lines[0])
    (empty_project.raw / "Sony_train_list.txt").write_text("\n".join(lines[1:]))
    empty_project.run("preprocessing", preprocessing={"layout": "sid"})
    pairs, _ = tables(empty_project)
    assert dict(zip(pairs["scene"], pairs["split"], strict=True)) == {"Sony_00001": "test", "Sony_00002": "train", "Sony_20001": "train"}


def test_the_check_of_a_pair_can_be_sent_to_another_process(tmp_path):
    for seconds in (10.0, 0.1):
        write_dng(tmp_path / f"{seconds}.dng", make_frame(np.random.default_rng(0), shape=(128, 160), exposure_s=seconds, light=0.6))
    call = (check_files, RawFile(tmp_path / "0.1.dng"), RawFile(tmp_path / "10.0.dng"), 100.0, OPTIONS)
    function, *arguments = pickle.loads(pickle.dumps(call))
    assert function(*arguments)["record"]["verdict"] == "ok"
    (tmp_path / "0.1.dng").write_bytes(b"no raw")
    failed = check_files(*call[1:])["record"]
    assert failed["verdict"] == "failed"
    assert "LibRaw cannot read it" in failed["reason"]


def test_a_frame_and_its_reference_in_units_of_different_whites_are_compared_in_one():
    """A dark frame keeps the white of its tag, a bright one shows its own: what is restored to the scaled frame scores as that."""
    short = make_frame(np.random.default_rng(0), shape=(128, 160), exposure_s=0.1, light=0.6)
    long = with_white(make_frame(np.random.default_rng(0), shape=(128, 160), light=0.6), 15000.0, "measured")
    with KedroSession.create(ROOT, env="demo") as session:
        parameters = session.load_context().config_loader["parameters"]
    preprocessing = PreprocessingOptions.model_validate(parameters["preprocessing"])
    options = EvaluationOptions.model_validate(parameters["evaluation"])
    restored = preprocessing.demosaicer.demosaic(short) * np.float32(100)
    pair = Pair("long", 100.0, None, (0.0, 0.0))
    figures, _ = evaluate_frame(
        (short, long), pair, {"restored": restored}, {"crop": None, "exposure_ratio": 100.0}, preprocessing, options
    )
    assert figures["restored_psnr_linear"] == pytest.approx(figures["scaled_psnr_linear"], abs=1e-3)
    assert figures["restored_psnr_linear"] > 20
